"""A new trace: plan its layout from definitions, clear its place, write its hierarchy."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError, SchemaError, TraceExistsError
from ..layout.attributes import check_attrs
from ..layout.chunk_lengths import choose_chunk_lengths
from ..layout.coordinates import SAMPLE_DIMS, Dimensions
from ..layout.file import MAKER_ATTRIBUTE, encode_layout
from ..layout.given_data import define_data
from ..layout.hierarchy import Hierarchy
from ..layout.layout import (
    IN_STORE,
    LIBRARY_VERSION,
    MOST_CHAINS,
    STATE,
    TABLES,
    Layout,
    SampledGroup,
    array_path,
    coordinates_attr,
    group_attrs,
    root_attrs,
)
from ..layout.names import check_group_name
from ..layout.superchains import superchain_attrs
from ..layout.variables import CONSTANT_GROUPS, Variable, check_group, define_group
from ..messages import warn_caller
from ..sampling_state.arrays import state_items
from ..sampling_state.flushed import flushed_item
from ..sampling_state.journal_file import can_map
from ..sampling_state.journal_format import journal_item
from ..store.dtypes import dtype_name
from ..store.location import Location
from ..store.network import network_of
from ..store.small_arrays import DataArray, array_items
from ..store.zarr_json import compose_encoding, encode_document, group_document
from . import place

if TYPE_CHECKING:
    import xarray as xr


Definition = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """Everything a new trace consists of, before anything is written."""

    layout: Layout
    coordinates: dict[str, dict[str, DataArray]]
    data: dict[str, dict[str, DataArray]]


def plan(
    location: Location,
    *,
    chains: int,
    draws: int | None,
    tune: int,
    thin: int,
    definitions: Mapping[str, Definition | xr.Dataset],
    coords: Mapping[str, Any] | None,
    dims: Mapping[str, str | Sequence[str]] | None,
    attrs: Mapping[str, Any] | None,
    name: str,
    chains_per_chunk: int,
    draws_per_chunk: int | None,
    superchains: Sequence[int] | None,
    compressors: Any,
    checksum: bool,
    journal: bool | str | os.PathLike[str],
    flush_every: float,
    durability: str,
) -> Plan:
    """Check all arguments of `zarrtrace.create`, and choose the layout."""
    for label, count, least in (
        ("chains", chains, 1),
        ("draws", 0 if draws is None else draws, 0),
        ("tune", tune, 0),
        ("thin", thin, 1),
        ("chains_per_chunk", chains_per_chunk, 1),
    ):
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < least:
            raise InvalidInputError(f"{label} must be a whole number from {least}, got {count!r}")
    if chains > MOST_CHAINS:
        raise InvalidInputError(f"chains must be at most {MOST_CHAINS:,}, got {chains:,}")
    if durability not in ("process", "disk"):
        raise InvalidInputError(
            f"durability must be 'process' (draws survive kill -9) or 'disk' (power loss too), "
            f"got {durability!r}"
        )
    if not isinstance(flush_every, int | float) or not flush_every >= 0:
        raise InvalidInputError(f"flush_every must be a number of seconds, got {flush_every!r}")
    if draws is not None and tune + draws == 0:
        raise InvalidInputError("tune + draws is 0: there is nothing to record")
    if not isinstance(dims, Mapping | None):
        raise SchemaError(f"dims: give a mapping of variables to names, got {dims!r}")
    dims = dict(dims or {})
    dimensions = Dimensions(coords)
    data: dict[str, dict[str, DataArray]] = {}
    drawn: list[Variable] = []
    for key, definition in definitions.items():
        group = new_group_name(key)
        if group in CONSTANT_GROUPS:
            data[group] = define_data(group, definition, dimensions, dims)
        else:
            drawn += define_group(group, definition, dimensions, dims, draws_per_chunk)
    if not drawn:
        raise SchemaError("there is nothing to record: pass posterior={...}")
    together = int(min(chains_per_chunk, chains))
    total = None if draws is None else int(tune + draws)
    variables = choose_chunk_lengths(drawn, chains_per_chunk=together, tune=int(tune), total=total)
    groups: dict[str, SampledGroup] = {}
    for variable in variables:
        sampled = groups.setdefault(variable.group, SampledGroup(variable.group, {}, int(tune)))
        sampled.variables[variable.name] = variable
    # Only now are all dimensions known, which a variable's name could repeat.
    members: dict[str, Mapping[str, Variable | DataArray]] = {
        **{group: sampled.variables for group, sampled in groups.items()},
        **data,
    }
    coordinates = {
        group: dimensions.coords_of(check_group(group, arrays, dimensions))
        for group, arrays in members.items()
    }
    layout = Layout(
        chains=int(chains),
        tune=int(tune),
        draws=None if draws is None else int(draws),
        chains_per_chunk=together,
        groups=groups,
        data_groups={group: tuple(arrays) for group, arrays in data.items()},
        coords={key: array.dims[0] for key, array in dimensions.coords.items()},
        encodings=compose_encodings(variables, data, dimensions, compressors, checksum),
        attrs=check_attrs(attrs or {}, "attrs") | superchain_attrs(superchains, chains),
        name=str(name),
        created_at=datetime.now(UTC).isoformat(),
        library_version=LIBRARY_VERSION,
        journal=journal_place(location, journal, flush_every),
        flush_every=float(flush_every),
        durable=durability == "disk",
        separator=location.separator,
        identity=uuid.uuid4().hex,
        thin=int(thin),
    )
    return Plan(layout, coordinates, data)


def new_group_name(name: object) -> str:
    """Check the name of a new group; the names of tables are reserved."""
    group = check_group_name(name)
    if group == TABLES:
        raise SchemaError(
            f"group {group!r}: this name is reserved for tables; rename it, or store rows "
            f"with trace.table(name)"
        )
    return group


def journal_place(
    location: Location, journal: bool | str | os.PathLike[str], flush_every: float
) -> str:
    """Where the journals go: into the store, to a directory of their own, or nowhere."""
    if journal is False:
        return ""
    if journal is True:
        if location.network:
            warn_caller(
                f"{location} is on a network file system ({location.network}), so draws wait in "
                f"memory, and a killed process loses up to {flush_every:g} s of them; "
                f"journal={_local_disk()!r} keeps them on a local disk, journal='store' in the "
                f"trace, and journal=False accepts the loss"
            )
        mapped = location.path is not None and not location.network and can_map()
        return IN_STORE if mapped else ""
    if not can_map():
        raise InvalidInputError("journal: this system cannot map and lock files; pass False")
    if journal == IN_STORE:
        if location.path is None:
            raise InvalidInputError(
                f"journal: {location} has no files that can be mapped; pass a local directory"
            )
        return IN_STORE
    directory = Path(journal).expanduser().absolute()
    if network := network_of(directory):
        raise InvalidInputError(
            f"journal: {directory} is on a network file system ({network}), where a mapped file "
            f"reaches other machines in no order; pass a directory on a local disk, or 'store'"
        )
    if not directory.is_dir():
        raise InvalidInputError(f"journal: {directory} is not a directory; create it first")
    name = str(location).rstrip("/").rpartition("/")[2]
    return str(directory / f"{name}-{uuid.uuid4().hex[:8]}-journal")


def _local_disk() -> str:
    """A directory on a local disk, for messages."""
    offered = (os.environ.get(name, "") for name in ("SLURM_TMPDIR", "TMPDIR"))
    local = (path for path in offered if os.path.isdir(path) and not network_of(path))
    return next(local, "/a/local/disk")


def write(location: Location, plan: Plan) -> Hierarchy:
    """Write the hierarchy of a new trace; the layout comes last and makes it a trace."""
    with place.making() as maker:
        # This marks an unfinished creation as ours, which may be overwritten.
        mark = group_document({MAKER_ATTRIBUTE: maker})
        location.write(f"{STATE}/zarr.json", encode_document(mark))
        location.write("zarr.json", encode_document(group_document(root_attrs(plan.layout))))
        location.write_many(_hierarchy_items(plan))
        make_journals(location, plan.layout)
        location.write(f"{STATE}/zarr.json", encode_layout(plan.layout, maker))
    return Hierarchy(location, plan.layout)


def require_same(location: Location, layout: Layout, planned: Layout) -> None:
    """Refuse a trace that was made with a different definition."""
    for what, found, wanted in (
        ("chains", layout.chains, planned.chains),
        ("tune", layout.tune, planned.tune),
        ("thin", layout.thin, planned.thin),
        ("draws", max(layout.total, planned.total), layout.total),  # it may have been extended
        ("chains_per_chunk", layout.chains_per_chunk, planned.chains_per_chunk),
        ("variables", _definitions(layout), _definitions(planned)),
        ("coordinates", layout.coords, planned.coords),
        ("groups of data", set(planned.data_groups) - set(layout.data_groups), set()),
    ):
        if found != wanted:
            raise TraceExistsError(
                f"the trace at {location} has other {what} than the one to be created: {found}, "
                f"not {wanted}; choose another place, or pass overwrite=True to remove it"
            )


def _definitions(layout: Layout) -> dict[str, tuple[Any, ...]]:
    return {
        variable.label: (dtype_name(variable.declared), variable.shape, variable.dims)
        for variable in layout.variables
    }


def make_journals(location: Location, layout: Layout) -> None:
    """Make the array of the writers' journals, or of their last rows and a directory."""
    if layout.journal == IN_STORE:
        location.write(*journal_item(layout))
        return
    if layout.sealed:
        location.write(*flushed_item(layout))
    if layout.journal:
        Path(layout.journal).mkdir(parents=True, exist_ok=True)


def _hierarchy_items(plan: Plan) -> Iterable[tuple[str, bytes]]:
    layout = plan.layout
    chains = DataArray(("chain",), np.arange(layout.chains))
    for group in layout.groups.values():
        # finish() numbers the draws: only then is their number known.
        coords = {"chain": chains, **plan.coordinates[group.name]}
        attrs = group_attrs(layout, group.name)
        yield from group_items(group.name, attrs, coords, {}, layout.encodings, layout.separator)
        for variable in group.variables.values():
            document = layout.document(variable, layout.planned_draws)
            yield f"{array_path(group.name, variable)}/zarr.json", encode_document(document)
    for name, arrays in plan.data.items():
        attrs = group_attrs(layout, name)
        coords = {**sample_coordinates(name, arrays, {}), **plan.coordinates[name]}
        yield from group_items(name, attrs, coords, arrays, layout.encodings, layout.separator)
    yield from state_items(layout)


def group_items(
    group: str,
    attrs: Mapping[str, Any],
    coords: Mapping[str, DataArray],
    arrays: Mapping[str, DataArray],
    encodings: Mapping[str, dict[str, Any]],
    separator: str,
) -> Iterable[tuple[str, bytes]]:
    """The keys and bytes of a group that is passed whole."""
    for name, array in {**coords, **arrays}.items():
        encoding = encodings[dtype_name(array.values.dtype)]
        yield from array_items(f"{group}/{name}", array, encoding, separator)
    attrs = {**attrs, **coordinates_attr({name: array.dims[0] for name, array in coords.items()})}
    yield f"{group}/zarr.json", encode_document(group_document(attrs))


def compose_encodings(
    variables: Iterable[Variable],
    data: Mapping[str, Mapping[str, DataArray]],
    dimensions: Dimensions,
    compressors: Any,
    checksum: bool = False,
) -> dict[str, dict[str, Any]]:
    """How each dtype of the trace is stored, composed once for all its arrays."""
    dtypes = {dtype_name(variable.dtype): variable.dtype for variable in variables}
    dtypes["int64"] = np.dtype("int64")
    arrays = [array for group in data.values() for array in group.values()]
    for array in (*arrays, *dimensions.coords.values()):
        dtypes[dtype_name(array.values.dtype)] = array.values.dtype
    return {key: compose_encoding(dtype, compressors, checksum) for key, dtype in dtypes.items()}


def sample_coordinates(
    group: str, arrays: Mapping[str, DataArray], given: Mapping[Any, Any]
) -> dict[str, DataArray]:
    """The chain and draw coordinates of a group that is passed whole."""
    found: dict[str, DataArray] = {}
    for name, array in arrays.items():
        for dim, size in zip(array.dims, array.shape, strict=True):
            if dim not in SAMPLE_DIMS:
                continue
            if dim in found and len(found[dim].values) != size:
                raise SchemaError(
                    f"{group}/{name}: {dim} has {size} elements, but elsewhere in the group "
                    f"{len(found[dim].values)}"
                )
            labels = np.asarray(given[dim].values) if dim in given else np.arange(size)
            found[dim] = DataArray((dim,), labels)
    return found
