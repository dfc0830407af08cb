"""A trace as JSON for programs in any language: the documents of `zarrtrace ... --json`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ..errors import DamagedTraceError
from ..reading.groups import Snapshot
from ..reading.moment import Moment
from ..store.dtypes import dtype_name
from .damage import Damage
from .description import Beside, file_sizes
from .status import find_status, next_step


def to_json(content: object, indent: int | None = 2) -> str:
    """Strict JSON, on one line without indentation; a number that JSON does not have is null."""
    return json.dumps(_plain(content), indent=indent, allow_nan=False)


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, range):
        return [content.start, content.stop]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def describe_trace(now: Moment, beside: Beside) -> dict[str, Any]:
    """A trace: its status, counts, groups, tables and attributes."""
    layout, status, sizes = now.layout, find_status(now), file_sizes(now)
    return {
        "path": str(now),
        "status": status.word,
        "since": _utc(status.since),
        "next": next_step(now, status.word),
        "finished": layout.finished,
        "chains": layout.chains,
        "tune": layout.tune,
        "thin": layout.thin,
        "draws": layout.draws,
        "recorded": now.counts.tolist(),
        "dropped": layout.dropped,
        "left_out": [chain for block in layout.left_out for chain in layout.chains_of(block)],
        "created_at": layout.created_at,
        "sampling_time": now.sampling_time,
        "attributes": layout.attrs,
        "groups": {name: _variables(now, name) for name in now.groups},
        "tables": {
            table.name: {"rows": table.rows, "columns": list(table.columns)}
            for table in beside.tables
        },
        "segments": beside.segments,
        "bytes": None if sizes is None else sum(sizes),
        "files": None if sizes is None else len(sizes),
    }


def _variables(now: Moment, group: str) -> dict[str, Any]:
    """The variables of a group: dtype, dimensions and shape, of one draw where it is sampled."""
    sampled = now.layout.groups.get(group.removeprefix("warmup_"))
    if sampled is not None:
        return {
            name: {
                "dtype": dtype_name(variable.declared),
                "dims": variable.dims,
                "shape": variable.shape,
                **variable.rounding_attrs,
            }
            for name, variable in sampled.variables.items()
        }
    try:
        arrays = Snapshot(now).dataset(group).data_vars
    except DamagedTraceError:
        return dict.fromkeys(now.layout.data_groups.get(group, ()))
    return {
        str(name): {"dtype": str(array.dtype), "dims": array.dims, "shape": array.shape}
        for name, array in arrays.items()
    }


def describe_run(name: str, run: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run of a folder, from what `Run.describe` says, and the settings it was made with."""
    return {"name": name, **run, "since": _utc(run["since"]), "settings": settings}


def describe_check(path: str, found: Iterable[Damage], has_checksums: bool) -> dict[str, Any]:
    """The result of `check`; without checksums a flipped bit may not be found."""
    return {"path": path, "checksums": has_checksums, "damage": [asdict(one) for one in found]}


def _utc(time: float | None) -> str | None:
    try:
        return None if time is None else datetime.fromtimestamp(time, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None
