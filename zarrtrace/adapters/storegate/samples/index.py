"""The content of a data set, in one document that is replaced as a whole.

The format: a data set is a group with the attributes `zarrtrace_data_set` (1, the version of this)
and `zarrtrace_made` (JSON text: path → an id of the array; an array that replaces another one at
its path has another id). The consolidated metadata in the group's zarr.json lists the arrays
`<phase>/<variable>` that exist, with the phases `train`, `valid` and `test`; it is written last,
after the chunks and the arrays' own zarr.json files, which repeat it for readers of a single
array. The first dimension of every array is `sample`, and only it is cut into chunks; rows of the
last chunk after the shape's last row have no meaning. Chunk keys have the encoding `default` or,
after an array was replaced, `v2`, with the separator ".".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import Any

from zarrtrace.errors import (
    DamagedTraceError,
    FormatVersionError,
    InvalidInputError,
    NotWritableError,
    SchemaError,
    TraceExistsError,
    TraceNotFoundError,
)
from zarrtrace.layout import check_name
from zarrtrace.store import (
    Location,
    consolidated_metadata,
    encode_document,
    group_document,
    parse_document,
    read_document,
)

from .array import PHASES, SampleArray

MARK = "zarrtrace_data_set"  # the attribute that marks a data set, and has its format
_MADE = "zarrtrace_made"  # JSON text: ids that differ for arrays that replace each other
_VERSION = 1
_PATIENCE = 60.0  # seconds to wait for another process that writes

Arrays = Mapping[str, SampleArray]
Changes = Mapping[str, SampleArray | None]


def data_sets(location: Location) -> list[str]:
    """The names of the groups that are data sets, sorted."""
    found = []
    for name in sorted(location.children("")):
        document = read_document(location, name)
        if document is not None and MARK in document.get("attributes", {}):
            found.append(name)
    return found


def _are_same(one: SampleArray | None, other: SampleArray | None) -> bool:
    """Whether an array is unchanged: it is the same one, of the same length."""
    if one is None or other is None:
        return one is other
    return (one.made, one.shape) == (other.made, other.shape)


class Index:
    """The arrays of a data set by `phase/name`, as they are now, whatever process wrote them.

    Attributes
    ----------
    location : Location
        The group of the data set.
    """

    def __init__(self, root: Location, group: str, read_only: bool) -> None:
        self._root = root
        self._group = "/".join(check_name(name, "group") for name in group.split("/") if name)
        self._read_only = read_only
        self._connect()

    def _connect(self) -> None:
        self.location = self._root.below(self._group) if self._group else self._root
        self._lock = threading.RLock()
        self._depth = 0
        self._seen: tuple[bytes, Arrays] = (b"", {})

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_root", "_group", "_read_only")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    # Reading ------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """All arrays, in the order in which they were added."""
        data = self.location.read("zarr.json")
        if data is None:
            raise TraceNotFoundError(f"there is no data set at {self.location}")
        content = bytes(data)
        if content != self._seen[0]:
            self._seen = content, self._parse(parse_document(data, f"{self.location}/zarr.json"))
        return self._seen[1]

    def _parse(self, document: Mapping[str, Any]) -> Arrays:
        try:
            version = document["attributes"].get(MARK)
            if version is None:
                raise TraceNotFoundError(f"{self.location} is not a data set")
            if version > _VERSION:
                raise FormatVersionError(
                    f"{self.location} has format {version} of data sets; this zarrtrace reads up "
                    f"to {_VERSION}: upgrade it"
                )
            made = json.loads(document["attributes"][_MADE])
            # Other arrays in the group do not belong to the data set.
            return {
                path: SampleArray(path, found, made[path])
                for path, found in document["consolidated_metadata"]["metadata"].items()
                if path in made
            }
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DamagedTraceError(
                f"{self.location}/zarr.json cannot be read ({error!r}); restore it from a copy"
            ) from error

    def array(self, path: str) -> SampleArray:
        """The array at `phase/name`."""
        return self.cut([path])[0]

    def cut(self, paths: Iterable[str]) -> list[SampleArray]:
        """Several arrays as they are at one moment; InvalidInputError when one is missing."""
        arrays = self.arrays()
        found = []
        for path in paths:
            if path not in arrays:
                phase, _, name = path.partition("/")
                known = [other.name for other in arrays.values() if other.phase == phase]
                raise InvalidInputError(
                    f"{self.location} has no variable {name!r} in {phase}; "
                    f"it has {', '.join(known) or 'none'}",
                    group=phase,
                    variable=name,
                )
            found.append(arrays[path])
        return found

    # Changing -----------------------------------------------------------------------------

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock out other writers, in this process and, on a local disk, in others."""
        if self._read_only:
            raise NotWritableError(f"{self.location} is open read-only; open it with mode='a'")
        self._root.require_writable()
        with self._lock:
            if self._depth:
                yield
                return
            with self._root.alone(_PATIENCE) as alone:
                if not alone:
                    raise NotWritableError(
                        f"another process has been writing to {self._root} for {_PATIENCE:.0f} s; "
                        f"nothing was written: wait for it, or stop it"
                    )
                self._depth = 1
                try:
                    yield
                finally:
                    self._depth = 0

    def commit(self, before: Arrays, changes: Changes) -> None:
        """Publish changed arrays (None: deleted) atomically, after their chunks were written.

        Then chunks of arrays that were replaced or deleted are removed.
        """
        now = self.arrays()
        for path in changes:
            if not _are_same(before.get(path), now.get(path)):
                raise NotWritableError(
                    f"{self.location}: another process changed {path} at the same time, and this "
                    f"store cannot be locked; nothing was written. Use one writer at a time"
                )
        arrays = {path: changes.get(path, array) for path, array in now.items()} | dict(changes)
        kept = {path: array for path, array in arrays.items() if array is not None}
        for path in changes:
            if path in kept:
                self._write(path, kept[path].document)
        document = read_document(self.location, "") or {}
        others = {
            path: found
            for path, found in document["consolidated_metadata"]["metadata"].items()
            if path not in now
        }
        made = {path: array.made for path, array in kept.items()}
        document["attributes"][_MADE] = json.dumps(made)
        self._publish(document, others | {path: array.document for path, array in kept.items()})
        for path in changes:
            if path not in kept:
                self.location.delete(f"{path}/zarr.json")
                self.location.delete_tree(path)
            elif path in now and now[path].key(0) != kept[path].key(0):
                for key in now[path].keys:
                    self.location.delete(key)

    def _publish(self, document: dict[str, Any], metadata: Mapping[str, Any]) -> None:
        """Write the document that publishes a change, which comes last."""
        document["consolidated_metadata"] = consolidated_metadata(metadata)
        self.location.write("zarr.json", encode_document(document))

    def _write(self, path: str, document: Mapping[str, Any]) -> None:
        self.location.write(f"{path}/zarr.json", encode_document(document))

    def check_dimensions(self, array: SampleArray) -> None:
        """Refuse a new array that xarray would use as labels, or whose dimension has two sizes."""
        others = [other for other in self.arrays().values() if other.phase == array.phase]
        names = {other.name for other in (*others, array)}
        dims = {dim for other in (*others, array) for dim in other.dims}
        for taken in sorted(names & dims):
            raise SchemaError(
                f"{array.path}: {taken!r} is the name of a variable and of a dimension; rename one",
                group=array.phase,
                variable=array.name,
            )

    # Opening ------------------------------------------------------------------------------

    def open(self) -> None:
        """Find the data set, or create it; what a killed process left is ignored."""
        if self._read_only:
            self.arrays()
            return
        if self._root.path is not None:
            self._root.path.mkdir(parents=True, exist_ok=True)
        with self.alone():
            document = read_document(self.location, "")
            if document is None or MARK not in document["attributes"]:
                self._create()
            self._repair()

    def _create(self) -> None:
        self._require_empty()
        for parent in self._parents():
            if read_document(self._root, parent) is None:
                self._root.write(
                    f"{parent}/zarr.json".lstrip("/"), encode_document(group_document())
                )
        for phase in PHASES:
            self._write(phase, group_document())
        document = read_document(self.location, "") or group_document()
        document["attributes"] |= {MARK: _VERSION, _MADE: "{}"}
        self._publish(document, {phase: group_document() for phase in PHASES})

    def _parents(self) -> list[str]:
        """The groups of the store that the group of the data set is in."""
        if not self._group:
            return []
        return ["", *accumulate(self._group.split("/")[:-1], "{}/{}".format)]

    def _require_empty(self) -> None:
        """Refuse a place that holds more than the groups of an unfinished data set."""
        inside = [self.location.children(phase) for phase in PHASES]
        names = {*self.location.children(""), *chain.from_iterable(inside)}
        others = {name for name in names if not name.endswith(".partial")}
        if others - {"zarr.json", *PHASES}:
            raise TraceExistsError(
                f"{self.location} holds something that is not a data set; choose another place, "
                f"or a group in it: group='samples'"
            )

    def _repair(self) -> None:
        arrays = self.arrays()
        documents = [f"{path}/zarr.json" for path in arrays]
        stored = self.location.read_many(documents)
        for array, data in zip(arrays.values(), stored, strict=True):
            if data is None or bytes(data) != encode_document(array.document):
                self._write(array.path, array.document)
        if self.location.path is None:
            return  # where nothing can be locked, another process may be about to publish it
        self.location.remove_partial_files()
        for phase in PHASES:
            for name in self.location.children(phase):
                if name != "zarr.json" and f"{phase}/{name}" not in arrays:
                    self.location.delete_tree(f"{phase}/{name}")
        for path, array in arrays.items():
            for key in {*self.location.keys(path)} - {*array.keys, f"{path}/zarr.json"}:
                self.location.delete(key)
