"""Tables: rows beside the draws, typed, and as safe as draws."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Place
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import FreshScript, Script

import zarrtrace as zt
from zarrtrace import errors
from zarrtrace.recording import exit as ending
from zarrtrace.tables import table

COLUMNS = {
    "draw": int,
    "step_size": float,
    "scales": zt.Var(shape=(2,), dtype="float32"),
    "ended": bool,
    "when": "datetime64[ms]",
}


@pytest.fixture(autouse=True)
def every_table_is_closed() -> Iterator[None]:
    """Before the store of the test goes."""
    yield
    for writer in ending.open_writers():
        writer.close()


def row(number: int) -> dict[str, Any]:
    """A row whose every value says which row it is."""
    return {
        "draw": number,
        "step_size": number / 2,
        "scales": [number, -number],
        "ended": number % 3 == 0,
        "when": np.datetime64(number, "ms"),
    }


def check_rows(found: table.Table, length: int) -> None:
    """Assert that a table has these rows, and no others, in every column."""
    numbers = np.arange(length)
    assert len(found) == length
    assert found["draw"].tolist() == numbers.tolist()
    assert found["step_size"].tolist() == (numbers / 2).tolist()
    assert found["scales"].tolist() == np.stack([numbers, -numbers], axis=1).tolist()
    assert found["ended"].tolist() == (numbers % 3 == 0).tolist()
    assert found["when"].tolist() == numbers.astype("datetime64[ms]").tolist()


def new_trace(place: Place) -> zt.Trace:
    return place.create(chains=2, draws=5, tune=2, posterior={"mu": 0.0})


def test_rows_come_back_while_they_are_appended_and_afterwards(place: Place) -> None:
    trace = new_trace(place)
    history = trace.table("history", COLUMNS)
    assert len(history) == 0
    for number in range(10):
        history.append(row(number))
        assert len(history) == number + 1
    check_rows(history, 10)
    history.append_rows({name: [row(n)[name] for n in range(10, 5000)] for name in COLUMNS})
    history.append(**row(5000))
    check_rows(history, 5001)
    history.close()
    if place.kind != "memory":
        there = place.open()
        assert there.tables == ("history",)
        check_rows(there.table("history"), 5001)
    assert history.read("draw", slice(4094, 4099)).tolist() == [4094, 4095, 4096, 4097, 4098]
    assert history.read("draw", slice(None, None, 2500)).tolist() == [0, 2500, 5000]


def test_a_table_continues_where_it_ended(place: Place) -> None:
    trace = new_trace(place)
    for start in range(0, 8, 4):
        with trace.table("history", COLUMNS) as history:
            for number in range(start, start + 4):
                history.append(row(number))
        check_rows(trace.table("history"), start + 4)
    assert trace.check() == []


def test_a_table_beside_the_draws_does_not_disturb_them(directory: Place) -> None:
    trace = new_trace(directory)
    trace.table("history", {"draw": int, "text": str}).append(draw=1, text="a")
    for chain in range(2):
        with trace.writer(chain) as writer:
            for draw in range(7):
                writer.record({"mu": draw})
    trace.split_warmup(3)
    trace.finish()
    # Not closed, but flushed with the draws.
    assert directory.open().table("history")["text"].tolist() == ["a"]
    trace.table("history").append(draw=2, text="b")
    trace.table("history").close()
    assert trace.groups == ("posterior", "warmup_posterior")
    assert trace.get("mu", chains=0)[0].tolist() == [3, 4, 5, 6]
    assert directory.open().table("history")["draw"].tolist() == [1, 2]
    # Plain readers see what ArviZ knows.
    plain = xr.open_datatree(directory.path, engine="zarr")
    assert set(plain.children) == {"posterior", "warmup_posterior"}
    assert trace.check() == []


def test_any_zarr_reader_finds_the_rows_that_were_flushed(directory: Place) -> None:
    trace = new_trace(directory)
    history = trace.table("history", COLUMNS)
    for number in range(5000):
        history.append(row(number))
    rows = {"group": "tables/history", "consolidated": False, "chunks": None}
    assert xr.open_zarr(directory.path, **rows).sizes["row"] == 0
    history.flush()
    plain = xr.open_zarr(directory.path, **rows)
    assert plain.scales.dims == ("row", "scales_dim_0")
    assert plain.step_size.values.tolist() == [number / 2 for number in range(5000)]
    history.append(row(5000))
    history.close()
    assert xr.open_zarr(directory.path, **rows).draw.values.tolist() == list(range(5001))


def test_a_table_is_a_dataframe_and_a_dataset(place: Place) -> None:
    trace = new_trace(place)
    notes = trace.table("notes", {**COLUMNS, "text": str})
    for number in range(3):
        notes.append(row(number), text=f"row {number}")
    frame = notes.to_dataframe()
    assert list(frame.columns) == [*COLUMNS, "text"]
    assert frame.draw.tolist() == [0, 1, 2]
    assert frame.text.tolist() == ["row 0", "row 1", "row 2"]
    assert frame.scales[2].tolist() == [2, -2]
    assert frame.ended.dtype == bool
    dataset = notes.to_dataset()
    assert dataset.sizes == {"row": 3, "scales_dim_0": 2}
    assert dataset.text.values.tolist() == ["row 0", "row 1", "row 2"]
    assert dataset.ended.dtype == bool
    # What was asked for does not change.
    notes.append(row(3), text="row 3")
    assert dataset.draw.values.tolist() == [0, 1, 2]


def test_an_empty_table_is_there_with_its_columns(place: Place) -> None:
    trace = new_trace(place)
    trace.table("history", COLUMNS)
    found = place.open().table("history") if place.kind != "memory" else trace.table("history")
    assert len(found) == 0
    assert list(found.columns) == list(COLUMNS)
    assert found.to_dataframe().empty
    assert found.to_dataset().sizes["row"] == 0
    assert found["draw"].tolist() == []


def test_the_first_row_declares_the_columns(place: Place) -> None:
    trace = new_trace(place)
    history = trace.table("history")
    assert repr(history).endswith("0 rows of nothing yet>")
    history.append(draw=1, loss=0.5, best=[1.0, 2.0], text="a", flag=True)
    dtypes = {name: column.dtype for name, column in history.columns.items()}
    assert dtypes["draw"] == np.int64
    assert dtypes["flag"] == np.bool_
    assert history.columns["best"].shape == (2,)
    history.append(draw=2, loss=1.5, best=[3.0, 4.0], text="a longer text", flag=False)
    assert history["text"].tolist() == ["a", "a longer text"]


def test_a_table_has_a_place_of_its_own_without_a_trace(place: Place) -> None:
    losses = table.open(place.store, {"loss": float}, attrs={"model": "a"}, **place.options)
    losses.append(loss=0.25)
    losses.close()
    assert table.open(place.store, mode="r", **place.options)["loss"].tolist() == [0.25]
    assert table.open(place.store, **place.options).attrs == {"model": "a"}


@pytest.mark.once("oldest")
def test_a_table_without_text_loses_no_row_to_kill_9(directory: Place, script: Script) -> None:
    new_trace(directory)
    writer = script.start(
        """
        import sys
        import zarrtrace as zt
        from test_table import COLUMNS, row
        history = zt.open(sys.argv[1], "a").table("history", COLUMNS)
        number = len(history)
        while True:
            history.append(row(number))
            number += 1
            if number % 500 == 0:
                print(number, flush=True)
        """,
        directory.path,
    )
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(10)][-1]
    reader = directory.open().table("history")
    for _ in range(20):
        length = len(reader)
        assert reader["draw"][:length].tolist() == list(range(length))
    writer.send_signal(signal.SIGKILL)
    said = int([str(said), *writer.communicate()[0].split()][-1])
    there = len(reader)
    assert there >= said
    check_rows(reader, there)
    # And it continues.
    with directory.open("a").table("history") as history:
        history.append(row(there))
    check_rows(directory.open().table("history"), there + 1)


@pytest.mark.once("oldest")
def test_a_table_with_text_loses_no_flushed_row_to_kill_9(directory: Place, script: Script) -> None:
    new_trace(directory)
    code = """
        import os, signal, sys
        import zarrtrace as zt
        notes = zt.open(sys.argv[1], "a").table("notes", {"n": int, "text": str})
        for number in range(7):
            notes.append(n=number, text="x" * number)
            if number == 4:
                notes.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        """
    killed = script.start(code, directory.path)
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    notes = directory.open("a").table("notes")
    assert notes["n"].tolist() == list(range(5))
    notes.append(n=5, text="after")
    assert notes["text"].tolist() == ["", "x", "xx", "xxx", "xxxx", "after"]


@pytest.mark.once("newest")
def test_rows_with_text_need_not_wait(directory: Place) -> None:
    notes = new_trace(directory).table("notes", {"n": int, "text": str}, flush_every=0)
    for number in range(1500):
        notes.append(n=number, text=f"row {number}")
        if number % 299 == 0:
            assert directory.open().table("notes")["text"][-1] == f"row {number}"
    notes.close()
    assert directory.open().table("notes")["text"].tolist() == [f"row {n}" for n in range(1500)]


def test_a_table_whose_making_was_killed_is_made_again(directory: Place, script: Script) -> None:
    trace = directory.create(chains=1, draws=1, posterior={"x": 0.0})
    code = """
    import os, signal, sys
    import zarrtrace as zt
    from zarrtrace.tables.table_file import TableFile

    trace = zt.open(sys.argv[1], mode="a")
    TableFile.write = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    trace.table("history").append(number=1)
    """
    process = script.start(code, directory.path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (directory.path / "tables/history/number/zarr.json").exists()
    assert trace.tables == ()
    assert len(trace.table("history")) == 0
    trace.table("history").append(number=2)
    assert directory.open().table("history")["number"].tolist() == [2]


def test_rows_with_text_are_flushed_in_time(directory: Place) -> None:
    notes = new_trace(directory).table("notes", {"text": str}, flush_every=0.05)
    notes.append(text="first")
    time.sleep(0.06)
    notes.append(text="second")
    assert directory.open().table("notes")["text"].tolist() == ["first"]


def test_rows_are_flushed_when_the_process_ends(
    directory: Place, fresh_script: FreshScript
) -> None:
    new_trace(directory)
    fresh_script.run(
        """
        import sys
        import zarrtrace as zt
        notes = zt.open(sys.argv[1], "a").table("notes", {"n": int, "text": str})
        notes.append(n=1, text="never closed")
        """,
        directory.path,
    )
    rows = {"group": "tables/notes", "consolidated": False, "chunks": None}
    assert xr.open_zarr(directory.path, **rows).text.values.tolist() == ["never closed"]


def test_a_second_process_is_refused_and_damages_nothing(directory: Place, script: Script) -> None:
    history = new_trace(directory).table("history", COLUMNS)
    history.append(row(0))
    said = script.run(
        """
        import sys
        import zarrtrace as zt
        from test_table import row
        history = zt.open(sys.argv[1], "a").table("history")
        try:
            history.append(row(1))
        except zt.errors.ChainBusyError as error:
            print(error)
        print(len(history))
        """,
        directory.path,
    )
    assert f"process {os.getpid()}" in said
    assert "chain" not in said
    assert said.splitlines()[-1] == "1"
    history.append(row(1))
    check_rows(history, 2)


@pytest.mark.once("newest")
def test_processes_that_make_the_same_table_at_once_make_one(
    directory: Place, script: Script
) -> None:
    new_trace(directory)
    code = """
        import sys, time
        import zarrtrace as zt
        trace = zt.open(sys.argv[1], "a")
        made = trace.table("notes", {"n": int})
        until = time.monotonic() + 240
        while time.monotonic() < until:
            try:
                with made:
                    made.append(n=int(sys.argv[2]))
                break
            except zt.errors.ChainBusyError:
                time.sleep(0.01)
        """
    processes = [script.start(code, directory.path, number) for number in range(3)]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert sorted(directory.open().table("notes")["n"].tolist()) == [0, 1, 2]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"draw": 1}, "no value for 'step_size'"),
    ({**row(1), "stepsize": 1.0}, "there is no column 'stepsize'; did you mean 'step_size'"),
    ({**row(1), "draw": 1.5}, "column 'draw', row 1: a value of dtype float64 cannot become int64"),
    ({**row(1), "scales": [1, 2, 3]}, "has shape (3,), expected (2,)"),
    ({**row(1), "ended": "no"}, "column 'ended'"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_a_bad_row_is_refused_and_the_next_is_taken(
    fast_place: Place, values: dict[str, Any], message: str
) -> None:
    history = new_trace(fast_place).table("history", COLUMNS)
    history.append(row(0))
    with pytest.raises(errors.DrawError) as caught:
        history.append(values)
    assert message in str(caught.value)
    assert caught.value.draw == 1
    history.append(row(1))
    check_rows(history, 2)


def test_bad_tables_are_refused(directory: Place) -> None:
    trace = new_trace(directory)
    with pytest.raises(errors.SchemaError, match="give columns as a mapping"):
        trace.table("a", {})
    with pytest.raises(errors.SchemaError, match="dtype object"):
        trace.table("a", {"x": object})
    with pytest.raises(errors.SchemaError, match="name of a dimension"):
        trace.table("a", {"row": int})
    with pytest.raises(errors.SchemaError, match="'/' separates groups"):
        trace.table("a/b", {"x": int})
    with pytest.raises(errors.TraceNotFoundError, match=r"has no table 'a'; it has none"):
        directory.open().table("a")
    trace.table("a", {"x": int})
    with pytest.raises(errors.SchemaError, match="column 'x' is int64 in the existing table"):
        trace.table("a", {"x": float})
    with pytest.raises(errors.SchemaError, match="column 'y' is nothing in the existing table"):
        directory.open("a").table("a", {"x": int, "y": int})
    with pytest.raises(errors.NotWritableError, match="read-only"):
        directory.open().table("a").append(x=1)
    with pytest.raises(KeyError, match="has no column 'z'; it has x"):
        trace.table("a")["z"]
    with pytest.raises(errors.SchemaError, match="reserved for tables"):
        zt.create(None, chains=1, draws=1, posterior={"x": 0.0}, groups={"tables": {"y": 0.0}})
    with pytest.raises(errors.TraceNotFoundError, match="there is no table at"):
        table.open(directory.path / "nothing", mode="r")
    assert trace.tables == ("a",)


def test_a_table_says_what_it_is(directory: Place) -> None:
    trace = new_trace(directory)
    trace.table("history", {"draw": int, "scales": zt.Var(shape=2)}).append(draw=1, scales=[1, 2])
    assert repr(trace.table("history")).endswith(
        "tables/history: 1 row of draw: int64, scales: float64[2]>"
    )
    assert "tables/history    1 row of draw, scales" in repr(trace)


def test_check_and_repair_reach_the_tables(directory: Place) -> None:
    trace = new_trace(directory)
    with trace.table("history", COLUMNS) as history:
        for number in range(5000):
            history.append(row(number))
    folder = directory.path / "tables/history"
    (folder / "step_size/c.0").write_bytes(b"damaged")
    document = (folder / "zarr.json").read_text()
    (folder / "zarr.json").write_text(document.replace("5000", "4000"))
    (folder / "draw/c.0.0123.partial").write_bytes(b"left behind")
    found = [str(damage) for damage in trace.check()]
    assert any("tables/history/zarr.json" in text and "checksum" in text for text in found)
    done = trace.repair()
    assert any("tables/history/step_size" in text and "lost" in text for text in done)
    assert any("has 5000 rows" in text for text in done)
    assert trace.check() == []
    repaired = directory.open().table("history")
    assert repaired["draw"].tolist() == list(range(5000))
    assert np.isnan(repaired["step_size"][:4096]).all()
    assert repaired["step_size"][4096:].tolist() == [n / 2 for n in range(4096, 5000)]


@settings(max_examples=20, deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(["append", "append_rows", "flush", "close", "read"]),
            st.integers(1, 3000),
        ),
        max_size=12,
    ),
    text=st.booleans(),
)
def test_any_order_of_calls_gives_the_rows_appended(parts: list[Any], text: bool) -> None:
    columns = {"n": int, "x": zt.Var(shape=(3,)), **({"text": str} if text else {})}
    found = table.open(None, columns)
    length = 0

    def rows(start: int, count: int) -> dict[str, Any]:
        numbers = np.arange(start, start + count)
        words = {"text": numbers.astype(str)} if text else {}
        return {"n": numbers, "x": np.repeat(numbers, 3).reshape(-1, 3), **words}

    for what, count in parts:
        if what == "append":
            found.append({name: values[0] for name, values in rows(length, 1).items()})
            length += 1
        elif what == "append_rows":
            found.append_rows(rows(length, count))
            length += count
        elif what == "read":
            dataset = found.to_dataset()
            for name, values in rows(0, length).items():
                assert dataset[name].values.tolist() == values.tolist()
        else:
            getattr(found, what)()
        assert len(found) == length
    for name, values in rows(0, length).items():
        assert found[name].tolist() == values.tolist()
    found.close()
