"""cox's surface on tables: what its users know, and what a kill or a stranger cannot take.

Values, types and shapes that are expected here are those that cox 0.2 returns for the same calls.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import Script

import zarrtrace as zt
from zarrtrace import folder as runs
from zarrtrace.adapters import cox
from zarrtrace.adapters.cox import (
    OBJECT,
    PICKLE,
    CollectionReader,
    Parameters,
    Store,
    override_json,
    schema_from_dict,
)
from zarrtrace.adapters.cox.tensorboard import tensorboard_command
from zarrtrace.errors import ChainBusyError, NotWritableError, SchemaError

SCHEMA = {"loss": float, "epoch": int, "name": str, "ok": bool}
ROW = {"loss": 0.5, "epoch": 3, "name": "b", "ok": False}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path, "a") as store:
        yield store


# A store --------------------------------------------------------------------------------------


def test_a_store_is_a_directory_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path, "a")
    assert capsys.readouterr().out == f"Logging in: {tmp_path}/a\n"
    assert (store.exp_id, store.path) == ("a", f"{tmp_path}/a")
    assert store.save_dir == f"{tmp_path}/a/save"
    assert store.tb_dir == f"{tmp_path}/a/tensorboard"
    assert Path(store.save_dir).is_dir()
    assert list(store.keys) == []
    assert len(Store(tmp_path).exp_id) == 36
    with pytest.raises(ValueError, match="already been run"):
        Store(tmp_path, "a", new=True)
    assert Store(tmp_path, "c", new=True).exp_id == "c"


def test_what_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    for mode in ("r", "r+"):
        with pytest.raises(FileNotFoundError, match="no experiment"):
            Store(tmp_path, "missing", mode=mode)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode is"):
        Store(tmp_path, "missing", mode="x")  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_a_table_is_found_by_its_name(store: Store) -> None:
    table = store.add_table("m", SCHEMA)
    assert store["m"] is table
    assert store.get_table("m") is table
    assert list(store.keys) == ["m"]
    assert table.schema == SCHEMA
    with pytest.raises(KeyError, match="zz"):
        store["zz"]


def test_an_empty_table_is_there_when_its_store_is_opened_again(store: Store) -> None:
    store.add_table("m", SCHEMA)
    store.close()
    again = Store(Path(store.path).parent, "a", mode="r")["m"]
    assert (again.nrows, again.schema) == (0, SCHEMA)
    assert again.df.columns.tolist() == list(SCHEMA)
    assert [kind.kind for kind in again.df.dtypes[["loss", "epoch", "ok"]]] == ["f", "i", "b"]


def test_an_existing_table_continues_and_other_columns_are_refused(store: Store) -> None:
    store.add_table("m", SCHEMA).append_row(ROW)
    store.close()
    with Store(Path(store.path).parent, "a") as again:
        again.add_table("m", SCHEMA).append_row(ROW)
        assert again["m"].nrows == 2
        with pytest.raises(ValueError, match="choose another name"):
            again.add_table("m", {"other": float})
    with Store(Path(store.path).parent, "a", mode="w") as replaced:
        assert list(replaced.keys) == []
        assert replaced.add_table("m", {"other": float}).nrows == 0


def test_names_may_be_anything(store: Store) -> None:
    names = ["a/b", "a b", "__m__", ".m", "größe", "100%", "row", "zarr.json"]
    for name in names:
        store.add_table(name, dict.fromkeys(names, int)).append_row(dict.fromkeys(names, 7))
    store.close()
    again = Store(Path(store.path).parent, "a", mode="r")
    assert sorted(again.keys) == sorted(names)
    for name in names:
        assert again[name].df.to_dict("list") == {key: [7] for key in names}


def test_a_column_that_has_no_type_is_refused(store: Store) -> None:
    for schema in ({"x": list}, {"x": "nonsense"}, {"x": None}, {}):
        with pytest.raises(SchemaError):
            store.add_table("m", schema)
    assert list(store.keys) == []


# Rows -----------------------------------------------------------------------------------------


def test_a_row_is_staged_coerced_and_appended(store: Store) -> None:
    table = store.add_table("m", SCHEMA)
    table.update_row({"loss": 1})
    with pytest.raises(ValueError, match="no value for epoch, name, ok"):
        table.flush_row()
    assert table.nrows == 0
    table.update_row({"epoch": 2.7, "name": 5, "ok": "x"})
    table.flush_row()
    with pytest.raises(ValueError, match="no value for loss, epoch, name, ok"):
        table.flush_row()
    table.append_row({"loss": np.float32(0.5), "epoch": np.array(3), "name": None, "ok": False})
    assert table.nrows == 2
    assert table.df.to_dict("list") == {
        "loss": [1.0, 0.5], "epoch": [2, 3], "name": ["5", "None"], "ok": [True, False],
    }  # fmt: skip
    assert table.df.index.tolist() == [0, 1]
    assert [str(table.df[name].dtype) for name in ("loss", "epoch", "ok")] == [
        "float64", "int64", "bool",
    ]  # fmt: skip


def test_what_is_refused_leaves_the_staged_row_as_it_was(store: Store) -> None:
    table = store.add_table("m", SCHEMA)
    table.update_row(ROW)
    with pytest.raises(ValueError, match="no column 'zz'; it has loss, epoch, name, ok"):
        table.update_row({"loss": 9.0, "zz": 1})
    with pytest.raises(ValueError, match="could not convert"):
        table.update_row({"epoch": 9, "loss": "hello"})
    with pytest.raises(TypeError):
        table.update_row({"epoch": 9, "loss": None})
    table.flush_row()
    assert table.df.to_dict("records") == [ROW]


def test_text_may_be_longer_than_in_the_first_row(store: Store) -> None:
    table = store.add_table("m", {"name": str})
    texts = ["a", "", "a much longer one", "größer ✓", "x" * 100_000]
    for text in texts:
        table.append_row({"name": text})
    assert table.df["name"].tolist() == texts


def test_types_of_numpy_keep_their_precision(store: Store) -> None:
    table = store.add_table("m", {"a": np.float32, "b": np.int8, "c": np.complex128})
    table.append_row({"a": 0.1, "b": 3, "c": 1 + 2j})
    store.close()
    again = Store(Path(store.path).parent, "a", mode="r")["m"]
    assert again.schema == {"a": np.float32, "b": np.int8, "c": np.complex128}
    assert again.df["a"].tolist() == [np.float32(0.1)]


def test_a_store_that_is_closed_or_read_only_takes_no_rows(store: Store) -> None:
    table = store.add_table("m", SCHEMA)
    table.append_row(ROW)
    store.close()
    store.close()
    for refusing in (table, Store(Path(store.path).parent, "a", mode="r")["m"]):
        with pytest.raises(NotWritableError):
            refusing.append_row(ROW)
        assert refusing.nrows == 1
    reader = Store(Path(store.path).parent, "a", mode="r")
    with pytest.raises(NotWritableError):
        reader.add_table("n", SCHEMA)
    with pytest.raises(AttributeError):
        _ = reader.tensorboard


def test_a_table_and_a_store_are_shown(store: Store) -> None:
    table = store.add_table("m", {"x": int})
    for x in range(4):
        table.append_row({"x": x})
    assert str(table) == "   x\n0  0\n1  1\n2  2\n3  3"
    table.append_row({"x": 4})
    assert str(table) == "   x\n0  0\n1  1\n2  2\n3  3\n ... (1 rows hidden)"
    assert str(store) == f"-- Table: m --\n{table}\n"


# Objects --------------------------------------------------------------------------------------


def test_the_schema_of_an_example(store: Store) -> None:
    example = {"a": 1, "b": 2.0, "c": "x", "d": True, "e": [1], "f": None, "g": np.float32(1)}
    expected = {
        "a": int, "b": float, "c": str, "d": bool, "e": OBJECT, "f": OBJECT, "g": OBJECT,
    }  # fmt: skip
    assert schema_from_dict(example) == expected
    assert store.add_table_like_example("m", example).schema == expected
    assert schema_from_dict({"e": [1]}, alternative=PICKLE) == {"e": PICKLE}


def test_an_object_is_text_that_runs_nothing(store: Store) -> None:
    table = store.add_table("m", {"a": OBJECT})
    value = {"x": [1, 2, (3, 4)], "y": np.arange(3.0), 5: None}
    table.append_row({"a": value})
    text = table.df["a"][0]
    assert json.loads(text)
    found = table.get_object(text)
    assert found.keys() == value.keys()
    assert found["x"] == [1, 2, (3, 4)]
    np.testing.assert_array_equal(found["y"], np.arange(3.0))
    assert [table.get_object(other) for other in (None, "", 3, "plain")] == [None, None, 3, "plain"]
    with pytest.raises(ValueError, match=r"column 'a'.*function.*make the column PICKLE"):
        table.update_row({"a": lambda: 1})


class Trap:
    """Unpickled, it makes a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.directory),)


def test_a_pickle_is_read_only_when_that_is_asked_for(store: Store, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    table = store.add_table("m", {"p": PICKLE, "q": PICKLE})
    table.append_row({"p": Trap(sprung), "q": {"f": lambda x: x + 1}})
    store.close()
    frame = CollectionReader(tmp_path).df("m")
    _ = Store(tmp_path, "a", mode="r")["m"].df, runs.open(tmp_path).table("m")
    assert len(frame["p"][0]) == 36
    assert table.get_pickle(frame["q"][0])["f"](1) == 2
    found = CollectionReader(tmp_path, allow_pickle=True).df("m", keep_serialized=["p"])
    assert found["q"][0]["f"](1) == 2
    assert not sprung.exists()
    CollectionReader(tmp_path, allow_pickle=True).df("m")
    assert sprung.exists()


def test_an_object_that_is_not_there_or_lies_elsewhere_is_not_read(store: Store) -> None:
    table = store.add_table("m", {"p": PICKLE})
    table.append_row({"p": 1})
    (Path(store.path) / "save" / "mine").write_bytes(pickle.dumps(1))
    for uid in ("nope", "../save/mine", str(Path(store.path) / "save" / "mine"), ".."):
        with pytest.raises(FileNotFoundError, match="no object"):
            table.get_pickle(uid)


# Kills, readers, two processes ----------------------------------------------------------------

WRITER = """
    import sys, time
    from zarrtrace.adapters.cox import Store

    store = Store(sys.argv[1], "a")
    numbers = store.add_table("numbers", {"i": int})
    schema = {"i": int, "word": str, "what": store.OBJECT, "p": store.PICKLE}
    words = store.add_table("words", schema)
    print("ready", flush=True)
    for i in range(10**9):
        numbers.append_row({"i": i})
        if i % 10 == 0:
            words.append_row({"i": i, "word": "w" * (i % 7), "what": [i], "p": i})
        print(i, flush=True)
        if i == int(sys.argv[2]):
            time.sleep(60)
"""


def test_a_killed_run_loses_no_flushed_row_and_continues(tmp_path: Path, script: Script) -> None:
    process = script.start(WRITER, tmp_path, -1)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "123\n":
            break
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    last = int((["123", *rest.split()])[-1])
    with Store(tmp_path, "a") as store:
        numbers = store["numbers"].df["i"].tolist()
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > last  # perhaps one more, which the kill kept from being printed
        words = store["words"]
        assert words.nrows >= last // 10 + 1
        for row in words.df.to_dict("records"):
            assert row["word"] == "w" * (row["i"] % 7)
            assert words.get_object(row["what"]) == [row["i"]]
            assert words.get_pickle(row["p"]) == row["i"]
        store["numbers"].append_row({"i": -1})
        assert store["numbers"].df["i"].tolist() == [*numbers, -1]


def test_a_running_store_is_read_and_a_second_one_that_appends_is_refused(
    tmp_path: Path, script: Script
) -> None:
    process = script.start(WRITER, tmp_path, 20)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "20\n":
            break
    try:
        reader = Store(tmp_path, "a", mode="r")
        assert reader["numbers"].df["i"].tolist() == list(range(21))
        assert reader["words"].df["i"].tolist() == [0, 10, 20]
        assert Store.read_from_running(str(tmp_path), "a")["numbers"].nrows == 21
        assert Store.read_from_running(f"{tmp_path}/a/")["words"].nrows == 3
        assert CollectionReader(tmp_path).df("words")["what"].tolist() == [[0], [10], [20]]
        second = Store(tmp_path, "a")
        with pytest.raises(ChainBusyError, match=f"process {process.pid} on"):
            second["numbers"].append_row({"i": 99})
        with pytest.raises(ChainBusyError, match=f"process {process.pid} on"):
            Store(tmp_path, "a", mode="w")
        assert reader["numbers"].nrows == 21
    finally:
        process.kill()
        process.communicate()
    second["numbers"].flush_row()  # it waited for its turn
    assert second["numbers"].df["i"].tolist() == [*range(21), 99]


# Collections ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four experiments, one with another column, one with another type; two have results."""
    schemas: list[Any] = [
        {"lr": float, "tags": OBJECT}, {"lr": float, "tags": OBJECT}, {"lr": float, "extra": int},
        {"lr": int, "tags": OBJECT},
    ]  # fmt: skip
    for i, schema in enumerate(schemas):
        with Store(tmp_path, f"e{i}") as store:
            values = {"lr": 0.1 * i, "tags": [i, "t"], "extra": 5}
            store.add_table("metadata", schema).append_row({name: values[name] for name in schema})
            if i < 2:
                results = store.add_table("res", {"loss": float})
                for j in range(2):
                    results.append_row({"loss": i + j})
    (tmp_path / "not_a_store").mkdir()
    (tmp_path / "file.txt").write_text("")
    return tmp_path


def test_a_table_is_read_over_all_experiments(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = CollectionReader(folder)
    assert list(reader.stores) == ["e0", "e1", "e2", "e3"]
    assert reader.tables == {"metadata", "res"}
    assert reader.schemas["res"] == {"loss": float}
    capsys.readouterr()
    found = reader.df("res")
    assert found.to_dict("list") == {
        "loss": [0.0, 1.0, 1.0, 2.0], "exp_id": ["e0", "e0", "e1", "e1"],
    }  # fmt: skip
    assert found.index.tolist() == [0, 1, 0, 1]
    assert "exp_id e2 has no table 'res'. Skipping." in capsys.readouterr().out
    assert list(reader.df("res", append_exp_id=False)) == ["loss"]
    with pytest.raises(ValueError, match="no experiment has a table 'zz'; there are metadata, res"):
        reader.df("zz")


def test_schemas_that_drift_are_united(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = CollectionReader(folder, log_warnings=False)
    capsys.readouterr()
    found = reader.df("metadata")
    assert found["lr"].tolist() == [0.0, 0.1, 0.2, 0]
    assert found["tags"].tolist()[:2] == [[0, "t"], [1, "t"]]
    assert found["tags"].isna().tolist() == [False, False, True, False]
    assert found["extra"].isna().tolist() == [True, True, False, True]
    assert found["extra"].iloc[2] == 5
    assert capsys.readouterr().out == ""
    kept = reader.df("metadata", keep_serialized=["tags"], exp_filter=lambda exp_id: exp_id < "e2")
    assert kept["tags"].tolist() == ['[0,"t"]', '[1,"t"]']


def test_experiments_are_chosen_and_damaged_ones_skipped_on_request(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(CollectionReader(folder, exp_filter=lambda exp_id: exp_id == "e1").stores) == ["e1"]
    (folder / "e2" / "tables" / "metadata" / "zarr.json").write_text("{")
    with pytest.raises(zt.TraceError):
        CollectionReader(folder)
    reader = CollectionReader(folder, skip_errs=True)
    assert "Error on exp_id e2" in capsys.readouterr().out
    assert reader.df("metadata")["exp_id"].tolist() == ["e0", "e1", "e3"]


def test_experiments_are_runs_and_a_trace_keeps_its_tables_with_them(folder: Path) -> None:
    trace = runs.create(folder, "with_draws", chains=1, draws=1, posterior={"mu": 0.0})
    with Store(folder, "with_draws") as store:
        store.add_table("res", {"loss": float}).append_row({"loss": 9.0})
        assert store["provenance"].schema["changed"] is bool
    assert trace.tables == ("provenance", "res")
    found = runs.open(folder)
    assert found["e0"].status == "tables"
    assert found.table("res")["loss"].tolist() == [0.0, 1.0, 1.0, 2.0, 9.0]


# TensorBoard ----------------------------------------------------------------------------------


def test_values_are_staged_and_logged(store: Store) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    table = store.add_table("log", {"loss": float, "n": int})
    for n in range(2):
        store.log_table_and_tb("log", {"loss": np.float64(n + 0.5)})
        assert table.nrows == n
        table.update_row({"n": n})
        table.flush_row()
    with pytest.raises(ValueError, match="no column 'zz'"):
        store.log_table_and_tb("log", {"zz": 1.0})
    with pytest.raises(KeyError, match="nope"):
        store.log_table_and_tb("nope", {"zz": 1.0})
    with pytest.raises(AttributeError, match="add_nonsense"):
        store.log_table_and_tb("log", {"loss": 1.0}, "nonsense")
    store.close()
    (file,) = Path(store.tb_dir).iterdir()
    content, logged = file.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        logged += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        content = content[12 + length + 4 :]
    assert logged == [("log/loss", 0, 0.5), ("log/loss", 1, 1.5)]
    assert cox.has_tensorboard(store.path)
    assert not cox.has_tensorboard(store.save_dir)


def test_one_tensorboard_is_started_over_all_experiments(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("e0", "e1", "not_a_store"):
        (folder / name / "tensorboard").mkdir()
    given = ["--logdir", str(folder), "--format-str", "lr={lr}: {tags}", "--port", "7"]
    assert tensorboard_command(given) == [
        "tensorboard", "--logdir_spec",
        f"lr=0.0_ 0.t---e0:{folder}/e0,lr=0.1_ 1.t---e1:{folder}/e1", "--port", "7",
    ]  # fmt: skip
    assert "Skipping experiment not_a_store" in capsys.readouterr().out
    chosen = tensorboard_command([*given, "--filter-param", "lr", r"0\.1"])
    assert chosen[2] == f"lr=0.1_ 1.t---e1:{folder}/e1"
    for wrong in (["--format-str", "{nope}"], ["--filter-param", "nope", "1"]):
        assert cox.main([*given, *wrong]) == 1
        assert "no column 'nope'" in capsys.readouterr().err


# Parameters -----------------------------------------------------------------------------------


def test_parameters_are_attributes_in_any_case() -> None:
    given = {"a": 1, "LR": 0.1, "none": None}
    parameters = Parameters(given)
    assert (parameters.A, parameters.a, parameters.lr, parameters.LR) == (1, 1, 0.1, 0.1)
    assert parameters.unknown is None
    assert "lr" in parameters
    assert "unknown" not in parameters
    parameters.NEW = 5
    parameters.Lr = 0.2
    assert parameters.as_dict() is given
    assert given == {"a": 1, "LR": 0.2, "none": None, "new": 5}
    del parameters.New
    assert list(parameters) == ["a", "LR", "none"]
    assert len(parameters) == 3
    assert str(parameters) == repr(parameters) == json.dumps(given, indent=2)
    for again in (pickle.loads(pickle.dumps(parameters)), copy.deepcopy(parameters)):
        assert again.as_dict() == given
    with pytest.raises(KeyError):
        del parameters.unknown
    with pytest.raises(ValueError, match="differ only by case"):
        Parameters({"a": 1, "A": 2})


def test_none_is_overridden_by_a_file(tmp_path: Path) -> None:
    file = tmp_path / "configuration.json"
    parameters = Parameters({"a": 1, "b": None, "config_path": None})

    def overridden(content: dict[str, int], check_consistency: bool = False) -> Any:
        file.write_text(json.dumps(content))
        return override_json(parameters, file, check_consistency).as_dict()

    assert overridden({"a": 10, "b": 20}) == {"a": 1, "b": 20, "config_path": None}
    assert overridden({"a": 10, "b": 20}, True) == {"a": 1, "b": 20, "config_path": None}
    assert overridden({"q": 20}) == {"a": 1, "q": 20, "b": None, "config_path": None}
    with pytest.raises(ValueError, match="not among the parameters: q"):
        overridden({"a": 10, "q": 20}, True)
    with pytest.raises(ValueError, match="not in the file: b"):
        overridden({"a": 10}, True)
    assert parameters.as_dict() == {"a": 1, "b": None, "config_path": None}
