"""What lies on disk is valid Zarr with ArviZ's names, at every moment of a trace's life."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.errors import MetadataValidationError

import zarrtrace as zt

CHAINS, TUNE, DRAWS = 3, 4, 5
SAMPLED: dict[str, dict[str, zt.Var]] = {
    "posterior": {
        "theta": zt.Var(dims="school"),
        "mu": zt.Var(attrs={"units": "points", "range": [0, 1.5]}),
        "L": zt.Var(shape=(3, 2), dtype="float32"),
        "accepted": zt.Var(dtype=bool),
        "label": zt.Var(dtype=str),
        "when": zt.Var(dtype="M8[ns]"),
    },
    "sample_stats": {
        "lp": zt.Var(),
        "diverging": zt.Var(dtype=bool),
        "tree_depth": zt.Var(dtype="int16"),
    },
    "log_likelihood": {"y": zt.Var(dims="school")},
}
DEFINITION: dict[str, Any] = {
    "chains": CHAINS,
    "tune": TUNE,
    "draws": DRAWS,
    "draws_per_chunk": 2,
    **SAMPLED,
    "coords": {"school": ["A", "B", "C"]},
    "observed_data": {"obs": ("school", [1.0, 2.0, 3.0])},
    "constant_data": {"sigma": 0.5},
    "attrs": {"inference_library": "my_sampler", "inference_library_version": "1.0"},
    "name": "schools",
}
STATE = {"draw_idx", "sampling_time", "sampling_start_time", "tuning_steps", "state", "writer"}


def value_of(var: zt.Var, chain: int, draw: int) -> Any:
    """A value that says which chain and draw it is of."""
    number = 100 * chain + draw
    if var.dtype is str:
        return f"{chain}/{draw}"
    if var.dtype is bool:
        return draw % 2 == 0
    if var.dtype == "M8[ns]":
        return np.datetime64(number, "s")
    shape = (3,) if var.dims == "school" else var.shape or ()
    return np.full(shape, number, dtype=var.dtype)  # type: ignore[arg-type]


def record(trace: zt.Trace, draws: int = TUNE + DRAWS) -> None:
    """Record draws of every chain, or of every block of chains."""
    for block in trace.blocks:
        with trace.writer(block) as writer:
            for i in range(draws):
                groups = {}
                for group, variables in SAMPLED.items():
                    groups[group] = {
                        name: value_of(var, block, i)
                        if isinstance(block, int)
                        else np.stack([value_of(var, chain, i) for chain in block])
                        for name, var in variables.items()
                    }
                writer.record(**groups)


def new(path: Path) -> zt.Trace:
    return zt.create(path, **DEFINITION)


def partly_recorded(path: Path) -> zt.Trace:
    trace = new(path)
    record(trace, TUNE + 1)
    return trace


def split(path: Path) -> zt.Trace:
    trace = new(path)
    record(trace)
    trace.split_warmup()
    return trace


def finished(path: Path) -> zt.Trace:
    trace = new(path)
    record(trace)
    trace.finish()
    return trace


def finished_in_blocks(path: Path) -> zt.Trace:
    trace = zt.create(path, **DEFINITION, chains_per_chunk=2, checksum=True)
    record(trace)
    trace.finish()
    return trace


@dataclass
class Built:
    """A trace at some moment of its life, that many tests look at."""

    stage: Any
    path: Path
    trace: zt.Trace


@pytest.fixture(
    scope="module",
    params=[new, partly_recorded, split, finished, finished_in_blocks],
    ids=lambda stage: stage.__name__,
)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    path = tmp_path_factory.mktemp("layout") / "run.zarr"
    return Built(request.param, path, request.param(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.zarr"


def documents(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every zarr.json of a hierarchy with the path of its node."""
    for found in sorted(path.rglob("zarr.json")):
        yield str(found.parent.relative_to(path)), json.loads(found.read_text())


# Valid Zarr -----------------------------------------------------------------------------------


def test_every_file_is_part_of_a_group_or_array(built: Built) -> None:
    nodes = {built.path / path: document for path, document in documents(built.path)}
    for found in built.path.rglob("*"):
        if found.is_dir():
            assert found in nodes
        elif found.name != "zarr.json":
            document = nodes[found.parent]
            shape = document["shape"]
            chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
            counts = [-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)]
            begin = ["c"] if document["chunk_key_encoding"]["name"] == "default" else []
            keys = {".".join([*begin, *map(str, i)]) for i in product(*map(range, counts))}
            assert found.name in keys


def test_plain_zarr_reads_every_array_and_group_but_draws_before_the_end(built: Built) -> None:
    for path, document in documents(built.path):
        assert document["zarr_format"] == 3
        if document["node_type"] == "group":
            zarr.open_group(str(built.path), path=path.strip("."), mode="r")
        elif "zarrtrace_unfinished" in document:
            assert not built.trace.finished
            group, variable = path.split("/")
            assert variable in SAMPLED[group.removeprefix("warmup_")]
            with pytest.raises(MetadataValidationError, match="zarrtrace_unfinished"):
                zarr.open_array(str(built.path), path=path, mode="r")
        else:
            array = zarr.open_array(str(built.path), path=path, mode="r")
            assert np.asarray(array[...]).shape == array.shape
            group, _, name = path.partition("/")
            has_moved = name in SAMPLED.get(group.removeprefix("warmup_"), ())
            assert document["chunk_key_encoding"] == {
                "name": "v2" if has_moved else "default",
                "configuration": {"separator": "."},
            }


def test_every_array_names_its_dimensions(built: Built) -> None:
    for _, document in documents(built.path):
        if document["node_type"] == "array":
            names = document["dimension_names"]
            assert len(names) == len(document["shape"])
            assert all(isinstance(name, str) and name for name in names)
            assert len(set(names)) == len(names)


def test_the_groups_are_arviz_s_and_one_for_the_sampling(built: Built) -> None:
    root = zarr.open_group(str(built.path), mode="r", use_consolidated=False)
    groups = {*SAMPLED, "observed_data", "constant_data", "_sampling_state"}
    if built.stage in (split, finished, finished_in_blocks):
        groups |= {f"warmup_{name}" for name in SAMPLED}
    assert set(root.group_keys()) == groups
    assert not set(root.array_keys())
    journal = set() if "finished" in built.stage.__name__ else {"journal"}
    state = root["_sampling_state"]
    assert set(state.array_keys()) == STATE | journal
    kept = {"convergence", "as_finished"} if "finished" in built.stage.__name__ else set()
    assert set(state.group_keys()) == kept


def test_arrays_have_a_chain_axis_a_draw_axis_and_whole_values_in_a_chunk(built: Built) -> None:
    trace = built.trace
    together = 2 if built.stage is finished_in_blocks else 1
    for group, variables in SAMPLED.items():
        lengths = {group: TUNE + DRAWS}
        if built.trace.finished or built.stage is split:
            lengths = {group: DRAWS, f"warmup_{group}": TUNE}
        for (name, length), variable in product(lengths.items(), variables):
            document = dict(documents(built.path))[f"{name}/{variable}"]
            rest = trace[group][variable].shape[2:]
            assert document["shape"] == [CHAINS, length, *rest]
            grid = document["chunk_grid"]["configuration"]
            assert grid["chunk_shape"] == [together, 2, *rest]


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        *((dtype, np.dtype(dtype).type(np.nan)) for dtype in ("f2", "f4", "f8")),
        *((dtype, np.dtype(dtype).type(complex(np.nan, np.nan))) for dtype in ("c8", "c16")),
        *((dtype, np.dtype(dtype).type(0)) for dtype in ("i1", "i8", "u1", "u8")),
        *((dtype, np.array("NaT", dtype)[()]) for dtype in ("M8[s]", "M8[ns]", "m8[us]")),
        (bool, np.False_),
        (str, ""),
    ],
    ids=str,
)
def test_where_nothing_was_recorded_stands_the_fill_value(
    path: Path, dtype: Any, fill: Any
) -> None:
    stats = {"x": zt.Var(dtype=dtype), "v": zt.Var(shape=2, dtype=dtype)}
    trace = zt.create(
        path, chains=2, draws=4, draws_per_chunk=3, posterior={"i": zt.Var()}, sample_stats=stats
    )
    zero: Any = "" if dtype is str else np.zeros((), dtype)[()]
    with trace.writer(0) as writer:
        writer.record({"i": 0}, {"x": zero, "v": [zero, zero]})
    for name in ("x", "v"):
        # But for what keeps other readers out, they are arrays of Zarr as any other.
        file = path / "sample_stats" / name / "zarr.json"
        document = json.loads(file.read_text())
        del document["zarrtrace_unfinished"]
        file.write_text(json.dumps(document))
        array = zarr.open_array(str(path), path=f"sample_stats/{name}", mode="r")
        assert repr(array.fill_value) == repr(fill)
        values = np.asarray(array[...])
        nothing = [*values[0, 1:].ravel(), *values[1].ravel()]
        # The chunk of a text says after which draw there is nothing yet.
        ends = {repr("\0not recorded yet")} if dtype is str else set()
        assert {repr(value) for value in nothing} == {repr(fill)} | ends


# Attributes -----------------------------------------------------------------------------------


def is_safe(value: Any) -> bool:
    """Whether netCDF can hold an attribute."""
    items = value if isinstance(value, list) else [value]
    return all(type(item) in (str, int, float) for item in items)


def test_every_attribute_can_be_held_by_netcdf(built: Built) -> None:
    for _, document in documents(built.path):
        for name, value in document["attributes"].items():
            assert is_safe(value), (name, value)
            assert name not in ("_FillValue", "_ARRAY_DIMENSIONS")


def test_each_group_has_the_attributes_arviz_writes(built: Built) -> None:
    trace = built.trace
    groups = zarr.open_group(str(built.path), mode="r", use_consolidated=False).groups()
    for name, group in groups:
        if name == "_sampling_state":
            continue
        attrs = dict(group.attrs)
        created = datetime.fromisoformat(attrs["created_at"])
        assert created.tzinfo == UTC
        assert attrs["creation_library"] == "zarrtrace"
        assert attrs["creation_library_version"] == zt.__version__
        assert attrs["creation_library_language"] == "Python"
        assert attrs["inference_library"] == "my_sampler"
        assert attrs["inference_library_version"] == "1.0"
        sampled = name.removeprefix("warmup_") in SAMPLED
        assert attrs.get("sample_dims") == (["chain", "draw"] if sampled else None)
        assert attrs.get("tuning_steps") == (TUNE if sampled else None)
        posterior = name in ("posterior", "warmup_posterior")
        expected = list(SAMPLED["posterior"]) if posterior else None
        assert attrs.get("sampled_variables") == expected
        if sampled and trace.finished:
            assert attrs["sampling_time"] > 0
    root = zarr.open_group(str(built.path), mode="r").attrs
    assert root["name"] == "schools"
    assert root["creation_library"] == "zarrtrace"


def test_the_attributes_of_a_variable_are_kept(path: Path) -> None:
    trace = finished(path)
    expected = {"units": "points", "range": [0, 1.5]}
    assert trace.posterior.mu.attrs == expected
    assert zarr.open_array(str(path), path="posterior/mu").attrs == expected


def test_the_format_version_is_in_the_sampling_state(path: Path) -> None:
    new(path)
    document = json.loads((path / "_sampling_state" / "zarr.json").read_text())
    assert json.loads(document["attributes"]["zarrtrace"])["format_version"] == 3


@pytest.mark.parametrize("stage", [partly_recorded, finished], ids=lambda stage: stage.__name__)
def test_the_export_goes_into_netcdf_and_comes_back(path: Path, stage: Any) -> None:
    pytest.importorskip("h5py")
    tree = stage(path).to_datatree(save_warmup=True)
    tree.to_netcdf(path.with_suffix(".nc"), engine="h5netcdf")
    with xr.open_datatree(path.with_suffix(".nc"), engine="h5netcdf") as back:
        assert list(back.children) == list(tree.children)
        xr.testing.assert_equal(back.load(), tree)


def test_the_plainly_opened_trace_goes_into_netcdf_too(path: Path) -> None:
    pytest.importorskip("h5py")
    finished(path)
    with xr.open_datatree(path, engine="zarr") as tree:
        tree.to_netcdf(path.with_suffix(".nc"), engine="h5netcdf")
        with xr.open_datatree(path.with_suffix(".nc"), engine="h5netcdf") as back:
            xr.testing.assert_equal(back.load(), tree)


# Coordinates and order ------------------------------------------------------------------------


def test_chain_and_draw_are_coordinates_of_each_sampled_group(built: Built) -> None:
    root = zarr.open_group(str(built.path), mode="r", use_consolidated=False)
    for path, document in documents(built.path):
        name, _, array = path.partition("/")
        sampled = name.removeprefix("warmup_") in SAMPLED
        if document["node_type"] != "array" or name == "_sampling_state":
            continue
        assert "/" not in array, "the root has no arrays, and groups have no groups"
        assert array not in ("chain", "draw") or sampled
        if sampled and array in SAMPLED[name.removeprefix("warmup_")]:
            sizes = dict(zip(document["dimension_names"], document["shape"], strict=True))
            if not built.trace.finished:
                # How many draws there are is known at the end.
                assert f"{name}/draw" not in root
                del sizes["draw"]
            for dim in sizes:
                labels = root[f"{name}/{dim}"]
                assert labels.shape == (sizes[dim],)  # type: ignore[union-attr]
                # Dimensions without labels are numbered.
                given = {"school": ["A", "B", "C"]}.get(dim, list(range(sizes[dim])))
                assert np.asarray(labels).tolist() == given


def test_groups_and_variables_keep_their_order(built: Built) -> None:
    trace = zt.open(built.path)
    order = ["posterior", "log_likelihood", "sample_stats", "observed_data", "constant_data"]
    assert list(trace.groups)[:5] == order
    assert {name.removeprefix("warmup_") for name in trace.groups[5:]} == set(SAMPLED)
    assert list(trace.to_datatree().children) == order
    for group, variables in SAMPLED.items():
        assert list(trace[group].data_vars) == list(variables)


def test_plain_readers_of_a_finished_trace_find_that_order(path: Path) -> None:
    trace = finished(path)
    with xr.open_datatree(path, engine="zarr") as tree:
        assert list(tree.children) == list(trace.groups)
        for group, variables in SAMPLED.items():
            assert list(tree[group].dataset.data_vars) == list(variables)
        xr.testing.assert_equal(tree.load(), trace.to_datatree(save_warmup=True).load())


# The journal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [1, 2])
def test_plain_zarr_reads_what_is_in_the_journal(path: Path, together: int) -> None:
    trace = zt.create(
        path,
        chains=4,
        draws=20,
        draws_per_chunk=10,
        chains_per_chunk=together,
        posterior={"x": zt.Var(), "s": zt.Var(dtype=str), "v": zt.Var(shape=2, dtype="int32")},
    )
    array = zarr.open_array(str(path), path="_sampling_state/journal", mode="r")
    assert array.dtype == "uint8"
    assert array.chunks == (together, array.shape[1])
    x = np.arange(7) + 0.5
    v = np.stack([np.arange(7), -np.arange(7)], axis=1)
    values = {"x": x, "s": np.full(7, "text"), "v": v}
    for number, block in enumerate(trace.blocks):
        with trace.writer(block) as writer:
            many = isinstance(block, range)
            writer.record_block({k: [a] * together if many else a for k, a in values.items()})
            # The layout of the bytes is that of the journal's module; it has no strings.
            found = array[number * together : (number + 1) * together].tobytes()
            assert found[:8] == b"zarrtrc3"
            assert int.from_bytes(found[8:16], "little") == 7
            kinds = [("x", "<f8", together), ("v", "<i4", (together, 2)), ("seal", "V16")]
            rows = np.frombuffer(found, kinds, 7, 128)
            assert (x == rows["x"].T).all()
            assert (np.moveaxis(rows["v"], 0, 1) == v).all()


def test_a_large_draw_is_a_chunk_of_its_own() -> None:
    posterior = {
        "small": zt.Var(shape=2**15),
        "large": zt.Var(shape=2**16),
        "chosen": zt.Var(shape=2**16, draws_per_chunk=3),
    }
    # 256 KiB and 512 KiB a draw; and the length that a user chooses holds.
    trace = zt.create(chains=1, draws=64, posterior=posterior)
    lengths = {variable.name: variable.draws_per_chunk for variable in trace._layout.variables}
    assert lengths == {"small": 16, "large": 1, "chosen": 3}
