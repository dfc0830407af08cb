"""Data sets: what is put in comes out, in any process, whatever is killed; xarray opens it."""

from __future__ import annotations

import inspect
import pickle
import random
import re
import signal
import threading
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import MemoryStore

import zarrtrace as zt
from zarrtrace.adapters.storegate.samples import PHASES, DataSet, list_data_sets, split_samples
from zarrtrace.adapters.storegate.samples.rows import CACHE_BYTES
from zarrtrace.errors import (
    DamagedTraceError,
    FormatVersionError,
    InvalidInputError,
    NotShareableError,
    NotWritableError,
    SchemaError,
    TraceExistsError,
    TraceNotFoundError,
)

if TYPE_CHECKING:
    from conftest import Place
    from scripts import Script

X = np.arange(60, dtype="float32").reshape(20, 3)
Y = np.arange(20)
VALUES: dict[str, Any] = {
    "float": X,
    "tensor": np.arange(20 * 2 * 3, dtype="float64").reshape(20, 2, 3),
    "int": Y.astype("uint8"),
    "bool": Y % 3 == 1,
    "text": np.array([f"sample {i} ü" for i in Y]),
    "objects": np.array([f"sample {i}" for i in Y], dtype=object),
    "times": Y.astype("datetime64[s]"),
    "complex": Y * 1j,
    "big endian": Y.astype(">f8"),
    "list": Y.tolist(),
}


def make(place: Place, **options: Any) -> DataSet:
    return DataSet(place.store, rows_per_chunk=4, **place.options, **options)


def same(found: Any, expected: Any) -> bool:
    return np.array_equal(np.asarray(found), np.asarray(expected).astype(found.dtype))


# What is put in comes out ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_every_kind_come_back(fast_place: Place, kind: str) -> None:
    make(fast_place).add("x", VALUES[kind], phase=(13, 0, 7))
    data = DataSet(fast_place.store, "r")
    assert data.phases == ["train", "test"]
    assert data.sizes == {"train": 13, "valid": 0, "test": 7}
    assert same(data["train"]["x"][:], np.asarray(VALUES[kind])[:13])
    assert same(data["test"]["x"][:], np.asarray(VALUES[kind])[13:])
    assert data["train"]["x"].dims[0] == "sample"


INDICES: list[Any] = [
    *(0, 7, -1, np.int64(5), slice(None), slice(3, 9), slice(4, 8), slice(None, None, -3)),
    *(slice(9, 3), slice(100, None), [5], [13, 2, 2, -1, 7], np.arange(20)[::-1], Y % 3 == 1),
]
NO_INDICES: list[Any] = [20, -21, [0, 20], [1.5], "a", [[1, 2]], [True, False], None, (1, 2)]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_means_what_numpy_means_by_it(fast_place: Place, index: Any) -> None:
    data = make(fast_place)
    data.add({"x": X, "y": Y})
    assert data.get("x", []).shape == (0, 3)
    for name, values in (("x", X), ("y", Y)):
        found = data["train"][name][index]
        expected = values[index if isinstance(index, int | slice) else np.asarray(index)]
        assert np.shape(found) == np.shape(expected)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("index", NO_INDICES, ids=str)
def test_an_index_of_no_sample_is_refused(fast_place: Place, index: Any) -> None:
    data = make(fast_place)
    data.add("x", X)
    with pytest.raises(IndexError, match="train/x"):
        data["train"]["x"][index]


def test_samples_are_added_and_removed_in_every_store(place: Place) -> None:
    data = make(place)
    data.add({"x": X[:6], "y": Y[:6]})
    data.add({"x": X[6:], "y": Y[6:]}, phase=(0.5, 0.25, 0.25))
    assert data.sizes == {"train": 13, "valid": 3, "test": 4}
    data.update("x", 0, index=[1, 12])
    data.map(lambda x, y: x.sum(axis=1) + y, ["x", "y"], to="s")
    data.map(lambda y: y * 10, "y", phase="train")
    data.delete("x", "valid")
    again = DataSet(place.store, "r", **place.options)
    expected = X.copy()
    expected[[1, 12]] = 0
    assert same(again["train"]["x"][:], expected[:13])
    assert same(again.get("s"), expected[:13].sum(axis=1) + Y[:13])
    assert same(again.get("s", phase="test"), X[16:].sum(axis=1) + Y[16:])
    assert same(again.get("y"), Y[:13] * 10)
    assert list(again["valid"]) == ["y", "s"]
    assert again.names == ["x", "y", "s"]
    assert list(again.get(["s", "y"], [0, -1])["y"]) == [0, 120]


def test_a_store_may_hold_other_things_beside(fast_place: Place) -> None:
    data = DataSet(fast_place.store, group="a/b", rows_per_chunk=4)
    data.add("x", X)
    DataSet(fast_place.store, group="c")
    assert list_data_sets(fast_place.store) == ["c"]
    assert same(DataSet(fast_place.store, "r", group="a/b").get("x"), X)


def test_what_is_given_is_never_changed_and_what_is_handed_out_may_be(fast_place: Place) -> None:
    given = X.copy()
    data = make(fast_place)
    data.add("x", given, seed=3)
    assert same(given, X)
    given[:] = -1
    before = data.get("x")
    time.sleep(0.06)
    for _ in range(3):
        batch = data.get("x", [0, 1, 2])
        batch[:] = -1
        data.get("x")[:] = -1
    assert same(data.get("x"), before)


def test_a_seed_shuffles_all_variables_alike() -> None:
    data = DataSet()
    data.add({"x": X, "y": Y}, phase=(10, 5, 5), seed=1)
    order = np.concatenate([data.get("y", phase=phase) for phase in PHASES])
    assert sorted(order) == list(Y)
    assert order.tolist() != Y.tolist()
    assert same(np.concatenate([data.get("x", phase=phase) for phase in PHASES]), X[order])
    again = DataSet()
    again.add({"x": X, "y": Y}, phase=(10, 5, 5), seed=1)
    assert same(again.get("y"), order[:10])


@pytest.mark.parametrize(
    ("phase", "count", "expected"),
    [
        ("valid", 5, {"valid": (0, 5)}),
        ((2, 0, 3), 5, {"train": (0, 2), "test": (2, 5)}),
        ((0.8, 0.1, 0.1), 10, {"train": (0, 8), "valid": (8, 9), "test": (9, 10)}),
        ((0.8, 0.1, 0.1), 5, {"train": (0, 4), "test": (4, 5)}),
        ((0.7, 0.2, 0.1), 7, {"train": (0, 4), "valid": (4, 6), "test": (6, 7)}),
        ((1 / 3, 1 / 3, 1 / 3), 10, {"train": (0, 3), "valid": (3, 6), "test": (6, 10)}),
    ],
)
def test_fractions_are_cut_off_and_test_gets_the_rest(
    phase: Any, count: int, expected: dict[str, Any]
) -> None:
    assert split_samples(phase, count) == {k: slice(*v) for k, v in expected.items()}


def test_map_goes_through_a_variable_in_stretches_and_may_replace_it(fast_place: Place) -> None:
    data = make(fast_place)
    values = np.arange(300).reshape(100, 3)
    data.add("x", values, phase=(80, 10, 10))
    seen = []

    def double(x: Any) -> Any:
        seen.append(len(x))
        return np.hstack([x, x]).astype("float32")

    data.map(double, "x")
    assert max(seen) < 80
    assert sum(seen) == 100
    assert data["train"]["x"].shape == (80, 6)
    assert data["test"]["x"].dtype == np.float32
    assert same(data.get("x"), np.hstack([values, values])[:80])
    data.map(lambda x: (x[:, 0], x[:, 1:]), "x", to=["x", "rest"])
    assert data["valid"]["rest"].shape == (10, 5)
    assert same(data.get("x"), values[:80, 0])


def test_a_function_that_fails_changes_nothing(fast_place: Place) -> None:
    data = make(fast_place)
    data.add("x", np.arange(100))

    def fails(x: Any) -> Any:
        if x[0] > 50:
            raise ArithmeticError
        return x * 2

    for bad in (fails, lambda x: x[:-1], lambda x: (x, x), lambda x: np.zeros((len(x), x[0] + 1))):
        with pytest.raises((ArithmeticError, InvalidInputError)):
            data.map(bad, "x")
        assert same(data.get("x"), np.arange(100))
        assert data.names == ["x"]


def test_reorder_keeps_the_samples_asked_for_of_all_variables(fast_place: Place) -> None:
    data = make(fast_place)
    data.add({"x": X, "y": Y})
    order = np.random.default_rng(0).permutation(20)
    data.reorder(order)
    assert same(data.get("x"), X[order])
    assert same(data.get("y"), Y[order])
    data.reorder(data.get("y") % 2 == 0)
    assert data.get("y").tolist() == [y for y in order if y % 2 == 0]


def test_a_data_set_goes_to_memory_and_to_storage(tmp_path: Path) -> None:
    data = DataSet(tmp_path / "a", rows_per_chunk=4)
    data.add({"x": X, "w": VALUES["text"]}, phase=(10, 5, 5))
    there = data.to_memory()
    there.update("x", 0)
    there.update("x", 0, phase="test")
    assert same(data.get("x"), X[:10])
    other = there.to_storage(tmp_path / "b", "x")
    assert repr(other) == (
        f"<zarrtrace.DataSet {tmp_path / 'b'}>\n"
        "    train 10 samples: x (10, 3) float32\n"
        "    valid 5 samples: x (5, 3) float32\n"
        "    test  5 samples: x (5, 3) float32"
    )
    data.to_storage(other, phase="train")
    assert same(other.get("x"), X[:10])
    assert same(other.get("w"), VALUES["text"][:10])
    assert not other.get("x", phase="test").any()


def test_changing_a_variable_takes_memory_for_some_chunks(tmp_path: Path) -> None:
    data = DataSet(tmp_path / "d")
    for _ in range(4):
        data.add("x", np.zeros((100_000, 10)))
    tracemalloc.start()
    try:
        data.map(lambda x: x + 1, "x")
        data.update("x", 2.0)
        data.to_storage(tmp_path / "e")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32e6 / 3
    assert (data.get("x") == 2).all()


# xarray, Zarr, other processes ----------------------------------------------------------------


def test_xarray_opens_it_as_it_is(fast_place: Place) -> None:
    data = make(fast_place)
    data.add({name: values for name, values in VALUES.items() if name != "complex"}, phase="train")
    data.add({"x": X, "empty": np.zeros((20, 1))[:, :0].sum(axis=1)}, phase="test")
    data.map(lambda x: x * 2, "float")  # under the other keys now
    data.add({name: VALUES[name][:3] for name in VALUES if name != "complex"})
    store = data._location.store
    tree = xr.open_datatree(store, engine="zarr", chunks=None)
    plain = {"engine": "zarr", "chunks": None, "consolidated": False}
    separate: xr.DataTree = xr.open_datatree(store, **plain)  # type: ignore[arg-type]
    for phase in data.phases:
        ours = data.to_dataset(phase).load()
        for other in (tree, separate):
            xr.testing.assert_equal(other[phase].to_dataset().load()[list(ours)], ours)
    assert dict(tree["train"].sizes) == {
        **{"sample": 23, "float_dim_0": 3, "tensor_dim_0": 2, "tensor_dim_1": 3}
    }
    assert same(np.asarray(zarr.open_group(store, mode="r")["train/int"][:20]), VALUES["int"])


def test_a_dataset_is_lazy_and_does_not_grow(tmp_path: Path) -> None:
    data = DataSet(tmp_path / "d", rows_per_chunk=4)
    data.add({"x": X, "y": Y})
    lazy = data.to_dataset()
    chunked = data.to_dataset(chunks={"sample": 8})
    data.add("x", X[:5])
    data.add({"z": Y})
    data.update("x", -1.0, index=0)
    assert lazy.sizes == {"sample": 20, "x_dim_0": 3}
    assert lazy.x[0].values.tolist() == [-1, -1, -1]
    assert lazy.x[::-7, 1].values.tolist() == X[::-7, 1].tolist()
    assert lazy.isel(sample=[4, 2], x_dim_0=[0]).x.values.tolist() == [[12], [6]]
    assert chunked.x.chunks[0] == (8, 8, 4)
    assert float(chunked.y.sum()) == Y.sum()
    # The shortest variable says how many samples there are.
    assert data.to_dataset().sizes["sample"] == 20
    assert data.sizes["train"] == 20
    assert data["train"]["x"].shape == (25, 3)


def test_it_travels_to_other_processes_unless_it_is_in_memory(tmp_path: Path) -> None:
    data = DataSet(tmp_path / "d")
    data.add("x", X)
    other: DataSet = pickle.loads(pickle.dumps(data))
    other.add("x", X)
    assert len(data["train"]["x"]) == 40
    with pytest.raises(NotShareableError):
        pickle.dumps(DataSet())


@pytest.mark.parametrize("how", ["update", "map", "delete and add", "append"])
def test_what_another_one_changed_is_seen_at_once(tmp_path: Path, how: str) -> None:
    reader = DataSet(tmp_path / "d", rows_per_chunk=4)
    writer = DataSet(tmp_path / "d", rows_per_chunk=4)
    writer.add("x", np.zeros(18))
    for i in range(1, 31):
        assert set(reader.get("x", [0, 5, 16])) == {i - 1}
        if i % 10 == 0:
            time.sleep(0.06)  # then chunks are kept
            assert set(reader.get("x", [0, 5, 16])) == {i - 1}
        if how == "update":
            writer.update("x", i)
        elif how == "map":
            writer.map(lambda x: x + 1, "x")
        elif how == "append":
            writer.add("x", [i - 1, i - 1])
            assert set(reader.get("x", [-1, -2])) == {i - 1}
            writer.update("x", i)
        else:
            writer.delete("x")
            writer.add("x", np.full(18, float(i)))


def test_chunks_that_are_kept_take_so_much_memory_and_no_more(tmp_path: Path) -> None:
    data = DataSet(tmp_path / "d")
    data.add("x", np.zeros((110_000, 100)))
    time.sleep(0.06)
    data.get("x", np.arange(0, 110_000, 50))
    held = data._cache._held
    assert data._cache._bytes == sum(chunk.nbytes for _, chunk in held.values())
    assert CACHE_BYTES - 2**18 < data._cache._bytes <= CACHE_BYTES


APPEND = """
import sys, numpy as np
from zarrtrace.adapters.storegate.samples import DataSet
data = DataSet(sys.argv[1], rows_per_chunk=7)
first = int(sys.argv[2])
for i in range(first, first + 25):
    data.add({"who": np.full(5, i), "row": np.arange(5)}, phase="train")
"""


@pytest.mark.once("newest")
def test_processes_that_add_at_the_same_time_wait_for_each_other(
    tmp_path: Path, script: Script
) -> None:
    place = tmp_path / "d"
    processes = [script.start(APPEND, place, first) for first in (0, 1000)]
    for process in processes:
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors
    data = DataSet(place, "r")
    who, row = data.get(["who", "row"]).values()
    assert sorted(who[::5]) == [*range(25), *range(1000, 1025)]
    assert (who.reshape(-1, 5) == who[::5, None]).all()
    assert (row.reshape(-1, 5) == np.arange(5)).all()


def test_threads_that_add_at_the_same_time_wait_for_each_other(fast_place: Place) -> None:
    data = make(fast_place)

    def add(first: int) -> None:
        for i in range(first, first + 10):
            data.add({"x": np.full(3, i)})

    threads = [threading.Thread(target=add, args=(100 * n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = data.get("x")
    assert sorted(found[::3]) == [*range(10), *range(100, 110), *range(200, 210)]
    assert (found.reshape(-1, 3) == found[::3, None]).all()


def test_a_writer_that_cannot_be_locked_out_is_noticed(objects: Place) -> None:
    first, second = make(objects), make(objects)
    first.add("x", [1.0])
    second.add("y", [1.0])

    def interrupted(x: Any) -> Any:
        second.add("x", [2.0])
        return x * 10

    with pytest.raises(NotWritableError, match="another process changed train/x"):
        first.map(interrupted, "x")
    assert first.get("x").tolist() == [1, 2]
    assert first.names == ["x", "y"]


REPLACE = """
import sys, numpy as np
from zarrtrace.adapters.storegate.samples import DataSet
data = DataSet(sys.argv[1], rows_per_chunk=7)
print("ready", flush=True)
for i in range(10**9):
    data.map(lambda x, y: (x + 1, y + 1), ["x", "y"])
    data.add({"x": np.full(5, data["train"]["x"][0]), "y": np.full((5, 2), data["train"]["x"][0])})
    data.reorder(slice(0, 50))
"""


@pytest.mark.once("newest")
def test_a_reader_finds_one_state_or_another_never_a_mixture(
    tmp_path: Path, script: Script
) -> None:
    data = DataSet(tmp_path / "d", rows_per_chunk=7)
    data.add({"x": np.zeros(50), "y": np.zeros((50, 2))})
    process = script.start(REPLACE, tmp_path / "d")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        seen = set()
        end = time.monotonic() + 60
        while len(seen) < 20 and time.monotonic() < end:
            found = data.get(["x", "y"])
            assert len(found["x"]) == len(found["y"])
            assert len({*found["x"], *found["y"].ravel()}) == 1
            seen.add((found["x"][0], len(found["x"])))
            assert len(set(data.get("x", [0, 30, 49, 3]))) == 1
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(seen) == 20


# Killed ---------------------------------------------------------------------------------------

LIFE = """
import sys, numpy as np
from zarrtrace.adapters.storegate.samples import DataSet
data = DataSet(sys.argv[1], rows_per_chunk=7)
n = sum(data.sizes.values())
sign = 1 if n == 0 else int(data["test"]["y"][-1][1] > 0) * 2 - 1
print("ready", flush=True)
for i in range(10**9):
    if "twice" in data.names:
        data.delete("twice")
    rows = np.arange(n + 1, n + 11)
    y = sign * np.stack([-rows, rows], 1)
    data.add({"x": rows / 2, "y": y, "w": rows.astype(str)}, phase=(6, 3, 1))
    n += 10
    if i % 3 == 0:
        data.map(lambda y: -y, "y")
        sign = -sign
    if i % 2 == 0:
        data.map(lambda x, w: x * 2, ["x", "w"], to="twice")
    if i % 5 == 0:
        data.update("x", data.get("x", slice(3, 30)), index=slice(3, 30))
    print(n, flush=True)
"""


def check_killed(path: Path, acknowledged: int) -> None:
    """Every sample that was acknowledged is there, and nothing of a change without the rest."""
    ours = DataSet(path, "r")
    total = sum(ours.sizes.values())
    assert total in (acknowledged, acknowledged + 10)
    rows = np.arange(1, total + 1).reshape(-1, 10)
    signs = set()
    for phase, part in (("train", rows[:, :6]), ("valid", rows[:, 6:9]), ("test", rows[:, 9:])):
        expected = part.ravel()
        found = ours.get(["x", "y", "w"], phase=phase)
        assert found["x"].tolist() == (expected / 2).tolist()
        assert found["w"].tolist() == [str(row) for row in expected]
        signs |= set(np.sign(found["y"][:, 1]).tolist())
        assert np.abs(found["y"]).tolist() == [[row, row] for row in expected]
    assert len(signs) == 1
    assert {"twice" in ours[phase] for phase in PHASES} in ({True}, {False})
    # What zarr alone reads is the same, at once by the metadata of the whole, and after opening.
    tree = xr.open_datatree(path, engine="zarr")
    DataSet(path)
    again = xr.open_datatree(path, engine="zarr", consolidated=False)
    for phase in PHASES:
        expected = ours.to_dataset(phase).load()
        xr.testing.assert_equal(tree[phase].to_dataset().load()[list(expected)], expected)
        xr.testing.assert_equal(again[phase].to_dataset().load()[list(expected)], expected)
    assert not list(path.rglob("*.partial"))


@pytest.mark.once("oldest")
def test_a_kill_leaves_it_as_before_or_after(
    tmp_path: Path, script: Script, trials: int | None
) -> None:
    path = tmp_path / "d"
    rng = random.Random(4)
    for _ in range(trials or 8):
        process = script.start(LIFE, path)
        assert process.stdout is not None
        ready, *lines = [process.stdout.readline() for _ in range(rng.randint(2, 12))]
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        output, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        assert ready == "ready\n"
        check_killed(path, int([*lines, *output.split()][-1]))


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    DataSet(folder, rows_per_chunk=4).add("x", X)
    before = sorted(folder.rglob("*"))
    own = (folder / "train/x/zarr.json").read_text()
    (folder / "zarr.json.1f.partial").touch()
    (folder / "train/zarr.json.2f.partial").touch()
    (folder / "train/x/c.9.0").touch()
    (folder / "train/x/0.0").touch()
    (folder / "train/ghost").mkdir()
    (folder / "train/ghost/c.0").touch()
    (folder / "train/x/zarr.json").write_text(own.replace("20,", "24,"))
    assert same(DataSet(folder, "r").get("x"), X)
    DataSet(folder)
    assert sorted(folder.rglob("*")) == before
    assert (folder / "train/x/zarr.json").read_text() == own
    assert "20," in own


# What is refused ------------------------------------------------------------------------------

BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "a name with a slash": (lambda d: d.add("a/b", [1]), SchemaError, "use 'a.b'"),
    "no name": (lambda d: d.add({}), InvalidInputError, "no variable"),
    "the name of the dimension": (lambda d: d.add("sample", [1]), SchemaError, "rename"),
    "the name of another dimension": (lambda d: d.add("x_dim_0", [1]), SchemaError, "rename"),
    "objects": (lambda d: d.add("o", [{}]), SchemaError, "without pickle"),
    "records": (lambda d: d.add("o", np.zeros(3, "i4,f8")), SchemaError, "one variable per field"),
    "a ragged list": (lambda d: d.add("o", [[1], [1, 2]]), SchemaError, "different shapes"),
    "one number": (lambda d: d.add("o", 3), SchemaError, "samples come first"),
    "samples of nothing": (lambda d: d.add("o", np.zeros((3, 0))), SchemaError, "at least one"),
    "unequal": (lambda d: d.add({"a": [1], "b": [1, 2]}), InvalidInputError, "'a': 1, 'b': 2"),
    "not alike before": (
        lambda d: d.add({"x": X[:1], "new": [1]}),
        InvalidInputError,
        "would not match",
    ),
    "another shape": (lambda d: d.add("x", Y), SchemaError, r"samples of shape \(3,\)"),
    "floats for ints": (lambda d: d.add("y", [0.5]), SchemaError, "without loss"),
    "text for ints": (lambda d: d.add("y", ["a"]), SchemaError, "without loss"),
    "300 for uint8": (lambda d: d.add("small", [300]), SchemaError, "without loss"),
    "-1 for uint8": (lambda d: d.update("small", -1), SchemaError, "without loss"),
    "no phase": (lambda d: d.add("x", X, phase="dev"), InvalidInputError, "got 'dev'"),
    "two fractions": (lambda d: d.add("x", X, (0.5, 0.5)), InvalidInputError, "three numbers"),
    "half of it": (lambda d: d.add("x", X, (0.2, 0.2, 0.1)), InvalidInputError, "the sum 1"),
    "too few": (
        lambda d: d.add("x", X, (1, 2, 3)),
        InvalidInputError,
        "is 6 samples, got 20",
    ),
    "negative": (lambda d: d.add("x", X, (-1, 20, 1)), InvalidInputError, "three numbers"),
    "reading nothing": (lambda d: d.get("nope"), InvalidInputError, "it has x, y, small"),
    "updating nothing": (lambda d: d.update("nope", 1), InvalidInputError, "it has x, y"),
    "deleting nothing": (lambda d: d.delete(["x", "nope"]), InvalidInputError, "'nope'"),
    "mapping nothing": (lambda d: d.map(abs, "nope"), InvalidInputError, "'nope'"),
    "an update too long": (lambda d: d.update("y", [1, 2], [1]), InvalidInputError, r"\(2,\)"),
    "no row per chunk": (lambda d: DataSet(rows_per_chunk=0), InvalidInputError, "1 or more"),
    "another mode": (lambda d: DataSet(mode="w"), InvalidInputError, "'a' or 'r'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_is_refused_and_changes_nothing(kind: str) -> None:
    data = DataSet()
    data.add({"x": X, "y": Y, "small": Y.astype("uint8")})
    call, error, message = BAD[kind]
    with pytest.raises(error, match=message):
        call(data)
    assert data["train"].keys() == {"x", "y", "small"}
    assert same(data.get("x"), X)
    assert same(data.get("y"), Y)
    assert same(data.get("small"), Y)


def test_whole_numbers_that_fit_are_taken_and_floats_are_rounded() -> None:
    data = DataSet()
    data.add({"small": np.array([1], "uint8"), "x": np.array([1], "float32")})
    data.add({"small": [200], "x": [0.1]})
    assert data.get("small").tolist() == [1, 200]
    assert data.get("x")[1] == np.float32(0.1)


def test_places_where_no_data_set_can_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(TraceExistsError, match="holds something that is not a data set"):
        DataSet(tmp_path)
    with pytest.raises(TraceNotFoundError):
        DataSet(tmp_path / "nowhere", "r")
    with pytest.raises(TraceNotFoundError):
        DataSet(tmp_path, "r")
    trace = zt.create(tmp_path / "run.zarr", chains=1, draws=1, posterior={"x": 0.0})
    with pytest.raises(TraceExistsError, match="group='samples'"):
        DataSet(trace.path)
    assert not (tmp_path / "zarr.json").exists()
    data = DataSet(tmp_path / "d")
    data.add("x", X)
    for call in (lambda d: d.add("x", X), lambda d: d.delete("x"), lambda d: d.update("x", 1)):
        with pytest.raises(NotWritableError, match="read-only"):
            call(DataSet(tmp_path / "d", "r"))


def test_damage_is_named_and_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    data = DataSet(tmp_path / "d", rows_per_chunk=4)
    data.add({"x": X, "y": Y})
    (tmp_path / "d" / "train" / "x" / "c.2.0").unlink()
    (tmp_path / "d" / "train" / "y" / "c.1").write_bytes(b"noise")
    with pytest.raises(DamagedTraceError, match=r"train/x/c\.2\.0 is missing"):
        data.get("x")
    with pytest.raises(DamagedTraceError, match=r"train/y/c\.1 cannot be decoded"):
        data.get("y", [5])
    assert same(data.get("x", slice(0, 8)), X[:8])
    document = tmp_path / "d" / "zarr.json"
    content = document.read_text()
    document.write_text(content.replace('"zarrtrace_data_set": 1', '"zarrtrace_data_set": 2'))
    with pytest.raises(FormatVersionError, match="upgrade"):
        data.get("x")
    document.write_text(content[:100])
    with pytest.raises(DamagedTraceError):
        DataSet(tmp_path / "d", "r")


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    data = DataSet(tmp_path / "d", rows_per_chunk=4)
    data.add({"x": X, "y": Y})
    obstacle = tmp_path / "d" / "train" / "y" / "c.8"
    obstacle.mkdir()
    with pytest.raises(DamagedTraceError, match=r"c\.8"):
        data.add({"x": X, "y": Y})
    assert data.sizes["train"] == 20
    assert len(xr.open_zarr(tmp_path / "d" / "train", consolidated=False).x) == 20
    obstacle.rmdir()
    data.add({"x": X, "y": Y})
    assert same(data.get("x"), np.concatenate([X, X]))


METHODS = [getattr(DataSet, name) for name in dir(DataSet) if not name.startswith("_")]
PUBLIC = [list_data_sets, split_samples, *filter(inspect.isfunction, METHODS)]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f.__name__)
def test_the_documentation_names_every_parameter(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        if name != "self":
            assert re.search(rf"^\s*(\w+, )*\**{name}\b.*( : |, |$)", text, re.M), name


def test_memory_is_shared_by_what_is_opened_on_one_store() -> None:
    store = MemoryStore()
    first = DataSet(store)
    second = DataSet(store)
    first.add("x", X)
    assert same(second.get("x"), X)
    first.delete("x")
    assert second.names == []
