"""Stores for zarr-python to read from, as xarray opens them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from zarr.abc.store import Store
from zarr.storage import LocalStore

from ..errors import DamagedTraceError
from .remote import read_whole

# The most bytes under a key whose size is not known otherwise: as many as Blosc can hold.
LARGEST = 2**31


def plain_store(store: Store) -> Store:
    """The same store, which reads regular files only, in as few requests as possible."""
    return RegularFiles(store.root) if type(store) is LocalStore else read_whole(store)


class RegularFiles(LocalStore):
    """A local store that reads regular files only: a pipe or a device is refused."""

    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        """The bytes under a key."""
        self._require_regular(key)
        return await super().get(key, *args, **options)

    def get_sync(self, key: str, *args: Any, **options: Any) -> Any:
        """The bytes under a key."""
        self._require_regular(key)
        return super().get_sync(key, *args, **options)

    def _require_regular(self, key: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(self.root / key)
            is_file = S_ISREG(status.st_mode)
            if not is_file and not S_ISDIR(status.st_mode):
                raise DamagedTraceError(
                    f"{self.root}: {key} cannot be read (it is neither a file nor a directory)"
                )
            if is_file and status.st_size > LARGEST:
                raise DamagedTraceError(
                    f"{self.root}: {key} cannot be read (it has {status.st_size:,} bytes)"
                )
