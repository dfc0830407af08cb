"""StoreGate returns what multiml's returns, step by step, and fixes what is wrong there."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import storegate_script
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from zarrtrace.adapters.storegate import StoreGate, import_zarr2
from zarrtrace.adapters.storegate.samples import DataSet
from zarrtrace.errors import NotWritableError, SchemaError

ORIGINAL = json.loads((Path(__file__).parent.parent / "data" / "storegate.json").read_text())
BACKENDS = storegate_script.BACKENDS


@pytest.fixture(params=BACKENDS)
def gate(request: pytest.FixtureRequest, tmp_path: Path) -> StoreGate:
    """A gate with `x` (20, 3), `y` (20,) in two phases, and `v`, `w` in one array each."""
    return filled(request.param, tmp_path / "data")


def filled(backend: str, folder: Path) -> StoreGate:
    args = {} if backend == "numpy" else {"output_dir": folder, "chunk": 4}
    made = StoreGate(backend, args, data_id="higgs")
    made.add_data("x", X, (15, 0, 5))
    made.add_data("y", Y, (0.75, 0, 0.25))
    made.add_data(("v", "w"), np.stack([Y, -Y], 1), (15, 0, 5))
    made.compile()
    return made


X = np.arange(60, dtype="f4").reshape(20, 3)
Y = np.arange(20)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_step_gives_what_the_original_gives(backend: str, tmp_path: Path) -> None:
    ours = json.loads(json.dumps(storegate_script.run(StoreGate, backend, str(tmp_path / "data"))))
    expected = ORIGINAL[backend]
    assert list(ours) == list(expected)
    assert len(ours) > 110
    for name, found in ours.items():
        assert found == expected[name], name


# Fixed ----------------------------------------------------------------------------------------


def test_views_share_no_state(gate: StoreGate) -> None:
    train, test = gate["train"], gate["test"]
    assert train is not test
    x, y = train["x"], train["y"]
    assert (len(train), len(test)) == (15, 5)
    assert x[0].tolist() == [0, 1, 2]
    assert y[:3].tolist() == [0, 1, 2]
    assert test["y"][0] == 15
    assert "x" in test
    with pytest.raises(ValueError, match="name a phase"):
        len(gate)
    for item in ("x", ["x", "y"]):
        with pytest.raises(ValueError, match="needs one phase"):
            gate[item][0]


def test_an_index_of_a_view_is_numpys(gate: StoreGate) -> None:
    batch = [3, -1, 3, 0]
    assert np.array_equal(gate["train"]["x"][-1], X[14])
    assert np.array_equal(gate["train"]["x"][batch], X[[3, 14, 3, 0]])
    assert np.array_equal(gate["train"][("v", "w")][batch][:, 1], -Y[[3, 14, 3, 0]])
    assert np.array_equal(gate["train"][["y", "x"]][np.array(batch)][1], X[[3, 14, 3, 0]])
    assert np.array_equal(gate["train"]["y"][Y[:15] % 2 == 0], Y[:15:2])
    gate["train"]["x"][[1, -2]] = np.full((2, 3), 7)
    gate["train"][("v", "w")][2] = [50, 60]
    gate["train"]["y"][0] = 9
    assert np.array_equal(gate["train"]["x"][[1, 13]], np.full((2, 3), 7))
    assert gate["train"][["v", "w"]][2] == [50, 60]
    assert gate["train"]["y"][0] == 9
    with pytest.raises(IndexError):
        gate["train"]["y"][15]


@pytest.mark.once("oldest")
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_example_of_the_original_runs(backend: str) -> None:
    gate = StoreGate(backend, data_id="test_id")
    names, data = ["var0", "var1", "var2"], [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    with pytest.warns(UserWarning, match="4 arrays for 3 names: the first 3 are taken") as warned:
        gate.add_data(var_names=names, data=data, phase=(0.5, 0.25, 0.25))
    assert warned[0].filename == __file__
    gate.compile()
    assert gate.get_metadata()["total_events"] == [1, 1, 1]
    assert gate["train"][names][0] == [0, 3, 6]
    assert [values.tolist() for values in gate.get_data(names, "test")] == [[2], [5], [8]]


def test_the_arrays_of_the_caller_are_their_own() -> None:
    gate = StoreGate(data_id="d")
    given = np.arange(10.0)
    gate.add_data("x", given, shuffle=5)
    gate.compile()
    assert given.tolist() == list(range(10))
    before = gate.get_data("x")
    given[:] = -1
    gate.get_data("x")[:] = -1
    assert gate.get_data("x").tolist() == before.tolist()


def test_fractions_whose_sum_is_almost_one_are_taken() -> None:
    gate = StoreGate(data_id="d")
    gate.add_data("x", np.arange(10), (0.7, 0.2, 0.1), do_compile=True)
    assert 0.7 + 0.2 + 0.1 != 1
    assert gate.get_metadata()["total_events"] == [7, 2, 1]


def test_active_is_set_again_after_more_samples_were_added(gate: StoreGate) -> None:
    gate.compile(reset=True)
    gate.add_data(["x", "y", "v", "w"], [X, Y, Y, Y])
    gate.compile(reset=True)
    assert gate.get_data("active").tolist() == [1] * 35


def test_text_is_stored_and_objects_are_refused(gate: StoreGate) -> None:
    words = np.array([f"event {i}" for i in range(20)])
    gate.add_data("word", words, "all")
    gate.compile()
    assert gate.get_data("word", "all").tolist() == words.tolist()
    assert gate.get_data("word").dtype.kind == "U"
    with pytest.raises(SchemaError, match="pickle"):
        gate.add_data("o", [{}])
    with pytest.raises(SchemaError, match="pickle"):
        gate.create_empty("o", (2,), dtype=object)


def test_what_cannot_belong_together_is_refused_at_once(gate: StoreGate) -> None:
    with pytest.raises(ValueError, match="same number of samples"):
        gate.add_data(["x", "y"], [X, Y[:3]])
    with pytest.raises(ValueError, match="without loss"):
        gate.update_data("y", np.full(15, 0.5))
    with pytest.raises(ValueError, match="2 variables, var_names has 3"):
        gate.add_data(["x", "y", "v"], [X, Y])
    assert len(gate["train"]) == 15
    assert gate.get_data("y").tolist() == list(range(15))


# Places ---------------------------------------------------------------------------------------


def test_the_data_are_there_for_the_next_one_and_for_xarray(tmp_path: Path) -> None:
    filled("zarr", tmp_path / "data").set_data_id("susy")
    again = StoreGate("zarr", {"output_dir": tmp_path / "data"}, "higgs")
    assert again.get_data_ids() == ["higgs", "susy"]
    again.compile()
    assert np.array_equal(again.get_data("x", "all"), X)
    tree = xr.open_datatree(tmp_path / "data" / "higgs", engine="zarr")
    assert np.array_equal(tree["test/x"].values, X[15:])
    assert tree["train"].sizes == {"sample": 15, "x_dim_0": 3}
    assert (tmp_path / "data" / "higgs" / "train" / "x" / "c.0.0").is_file()


def test_a_gate_travels_to_another_process(tmp_path: Path) -> None:
    gate = filled("zarr", tmp_path / "data")
    code = (
        "import pickle, sys; gate = pickle.load(sys.stdin.buffer); "
        "print(gate['train']['y'][[3, 1]], len(gate['test']))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, input=pickle.dumps(gate), capture_output=True, check=True)
    assert done.stdout.decode() == "[3 1] 5\n"


def test_the_modes_are_those_of_zarr(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for mode in ("r", "r+"):
        with pytest.raises(FileNotFoundError):
            StoreGate("zarr", {"output_dir": folder, "mode": mode}, "higgs")
    filled("zarr", folder)
    with pytest.raises(FileExistsError, match="higgs"):
        StoreGate("zarr", {"output_dir": folder, "mode": "w-"})
    reader = StoreGate("zarr", {"output_dir": folder, "mode": "r"}, "higgs")
    with pytest.raises(NotWritableError):
        reader.add_data("x", X)
    with pytest.raises(ValueError, match="mode must be"):
        StoreGate("zarr", {"output_dir": folder, "mode": "x"})
    StoreGate("zarr", {"output_dir": folder, "mode": "r+"}, "higgs").add_data("x", X)
    assert StoreGate("zarr", {"output_dir": folder, "mode": "w"}).get_data_ids() == []


@pytest.mark.parametrize(
    ("compressor", "name"),
    [
        ("default", "blosc"),
        (numcodecs.Blosc("zstd", 3, numcodecs.Blosc.BITSHUFFLE), "blosc"),
        (numcodecs.Zstd(3), "zstd"),
        (numcodecs.GZip(1), "gzip"),
        (ZstdCodec(level=1), "zstd"),
        (None, None),
    ],
)
def test_the_compressors_of_zarr_2_and_3_are_taken(
    tmp_path: Path, compressor: Any, name: str | None
) -> None:
    gate = StoreGate("zarr", {"output_dir": tmp_path / "data", "compressor": compressor}, "d")
    gate.add_data("x", X)
    gate.compile()
    assert np.array_equal(gate.get_data("x"), X)
    document = json.loads((tmp_path / "data/d/train/x/zarr.json").read_text())
    assert [codec["name"] for codec in document["codecs"][1:]] == ([name] if name else [])


def test_a_compressor_that_zarr_3_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'lz4': use Blosc"):
        StoreGate("zarr", {"output_dir": tmp_path, "compressor": numcodecs.LZ4()})


def test_what_the_original_wrote_is_brought_over(tmp_path: Path) -> None:
    old = zarr.open_group(tmp_path / "old", mode="w", zarr_format=2)
    for phase, values in (("train", X[:15]), ("test", X[15:])):
        array = old.create_array(
            f"higgs/{phase}/x", shape=values.shape, chunks=(4, 3), dtype="f4", compressors=None
        )
        array[:] = values
    old.create_group("higgs/valid")
    with pytest.raises(ValueError, match="import_zarr2"):
        StoreGate("zarr", {"output_dir": tmp_path / "old"}, "higgs")
    assert import_zarr2(tmp_path / "old", tmp_path / "new") == ["higgs"]
    gate = StoreGate("zarr", {"output_dir": tmp_path / "new"}, "higgs")
    gate.compile()
    assert np.array_equal(gate.get_data("x", "all"), X)
    with pytest.raises(ValueError, match="already has 'x' in train"):
        import_zarr2(tmp_path / "old", tmp_path / "new")


def test_another_backend_and_no_data_id_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="'hdf5'"):
        StoreGate("hdf5")
    gate = StoreGate()
    for call in (gate.compile, gate.get_metadata, lambda: gate.add_data("x", X)):
        with pytest.raises(ValueError, match="set_data_id"):
            call()
    with pytest.raises(ValueError, match="must be a string"):
        gate.set_data_id(3)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="hybrid"):
        gate.set_mode("zarr")


def test_the_info_is_a_table(gate: StoreGate, capsys: pytest.CaptureFixture[str]) -> None:
    gate.compile(show_info=True)
    printed = capsys.readouterr().out
    assert "StoreGate data_id : higgs, compiled : True" in printed
    assert re.search(r"^train +(numpy|zarr) +x +float32 +15 +\(3,\)$", printed, re.M)
    assert re.search(r"^test +(numpy|zarr) +w +int64 +5 +\(\)$", printed, re.M)


def test_a_hybrid_gate_keeps_its_mode_when_a_callback_fails(tmp_path: Path) -> None:
    gate = filled("hybrid", tmp_path / "data")

    def fails(name: Any, data: Any) -> Any:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        gate.to_memory("x", callback=fails)
    assert np.array_equal(gate.get_data("x"), X[:15])
    assert DataSet(tmp_path / "data", "r", group="higgs").names == ["x", "y", "v", "w"]
