"""What a table is on the disk: few files, each an array or a group, also of earlier versions."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import Place
from scripts import Script
from zarr.storage import MemoryStore, WrapperStore

import zarrtrace as zt
from zarrtrace import errors
from zarrtrace.recording import exit as ending
from zarrtrace.sampling_state import claim as claims
from zarrtrace.sampling_state.claim import Claim
from zarrtrace.store.locate import locate
from zarrtrace.tables import table
from zarrtrace.tables.table_file import TableFile

STORED = Path(__file__).parent.parent / "data" / "tables"


def files_in(directory: Path) -> list[str]:
    return sorted(str(f.relative_to(directory)) for f in directory.rglob("*") if f.is_file())


def check_that_every_file_belongs_to_an_array_or_a_group(directory: Path) -> None:
    for name in files_in(directory):
        path = directory / name
        assert (path.parent / "zarr.json").exists(), name
        zarr.open(path.parent, mode="r")


# Few files ------------------------------------------------------------------------------------


def test_a_table_of_one_row_is_five_files_while_it_is_open_and_afterwards(tmp_path: Path) -> None:
    losses = table.open(tmp_path / "losses", {"epoch": int, "loss": float})
    losses.append(epoch=1, loss=0.5)
    assert files_in(tmp_path) == [
        "losses/_journal/c.0.0",
        "losses/_journal/zarr.json",
        "losses/epoch/zarr.json",
        "losses/loss/zarr.json",
        "losses/zarr.json",
    ]
    check_that_every_file_belongs_to_an_array_or_a_group(tmp_path / "losses")
    losses.close()
    assert files_in(tmp_path) == [
        "losses/epoch/c.0",
        "losses/epoch/zarr.json",
        "losses/loss/c.0",
        "losses/loss/zarr.json",
        "losses/zarr.json",
    ]
    check_that_every_file_belongs_to_an_array_or_a_group(tmp_path / "losses")
    assert losses.check() == []


def test_every_column_is_an_array_that_zarr_opens(tmp_path: Path) -> None:
    columns = {"n": int, "x": zt.Var(shape=2, dims="side", attrs={"units": "m"}), "text": str}
    with table.open(tmp_path / "t", columns, attrs={"model": "a"}) as rows:
        for n in range(3):
            rows.append(n=n, x=[n, -n], text=f"row {n}")
    group = zarr.open_group(tmp_path / "t", mode="r")
    assert sorted(group.array_keys()) == ["n", "text", "x"]
    assert group.attrs["model"] == "a"
    column = group["x"]
    assert column.metadata.dimension_names == ("row", "side")
    assert dict(column.attrs) == {"units": "m"}
    assert column[:].tolist() == [[0, 0], [1, -1], [2, -2]]
    assert list(group["text"][:]) == ["row 0", "row 1", "row 2"]
    dataset = xr.open_zarr(tmp_path / "t", consolidated=False, chunks=None)
    assert dataset.sizes == {"row": 3, "side": 2}


class Counting(WrapperStore[MemoryStore]):
    """A store that is waited for, and counts how often."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.requests: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("set_sync", "get_sync", "delete_sync"):
            raise AttributeError(name)
        return super().__getattribute__(name)

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        self.requests.append(f"get {key}")
        return await super().get(key, *arguments, **options)

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        self.requests.append(f"set {key}")
        await super().set(key, *arguments, **options)

    async def exists(self, key: str) -> bool:
        self.requests.append(f"exists {key}")
        return await super().exists(key)


def test_a_row_on_a_store_that_makes_us_wait_takes_few_requests() -> None:
    store = Counting(MemoryStore())
    rows = table.open(store, {"epoch": int, "loss": float})

    def requests(*which: str) -> int:
        found = [one for one in store.requests if one.startswith(which)]
        return len(found)

    store.requests.clear()
    rows.append(epoch=1, loss=0.5)
    assert requests("set") == 1
    assert requests("get", "exists") <= 4
    store.requests.clear()
    rows.close()
    # Two chunks, the documents of two columns, and that of the table twice.
    assert requests("set") <= 6
    assert requests("get", "exists") <= 3
    store.requests.clear()
    assert table.open(store, mode="a")["loss"].tolist() == [0.5]
    assert 1 < requests("get", "exists") <= 5


# Who appends ----------------------------------------------------------------------------------


def test_an_open_table_is_registered_once(tmp_path: Path) -> None:
    before = len(ending.open_writers())
    rows = table.open(tmp_path / "t", {"n": int})
    rows.append(n=0)
    assert len(ending.open_writers()) == before + 1
    rows.close()
    assert len(ending.open_writers()) == before


def test_a_place_that_another_host_took_is_respected(
    fast_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table.open(fast_place.store, {"n": int, "text": str})
    rows.append(n=0, text="a")
    rows.flush()
    file = TableFile(locate(fast_place.store))
    stored = file.current()
    assert stored.claim is not None
    changed = {"host": "elsewhere", "boot": "of elsewhere", "token": "theirs"}
    elsewhere = Claim(**{**vars(stored.claim), **changed})
    file.write(type(stored)(stored.layout, stored.rows, elsewhere))
    with pytest.raises(errors.ChainBusyError, match=r"was taken over by process .* on elsewhere"):
        rows.flush()
    with pytest.raises(errors.ChainBusyError, match="was taken over by"):
        rows.append(n=1, text="b")
    with pytest.raises(errors.ChainBusyError, match="was taken over by"):
        rows.close()
    # It is watched, and taken for dead when its heartbeat does not come.
    monkeypatch.setattr(claims, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(claims, "STALE_AFTER", 0.05)
    with table.open(fast_place.store, mode="a") as again:
        again.append(n=1, text="b")
    assert table.open(fast_place.store, mode="a")["text"].tolist() == ["a", "b"]


@pytest.mark.parametrize("successor", [None, "elsewhere"])
def test_a_full_chunk_is_not_written_where_the_table_was_taken(
    memory: Place, successor: str | None
) -> None:
    rows = table.open(memory.store, {"n": zt.Var(dtype=int, draws_per_chunk=4)}, flush_every=1e9)
    rows.append_rows({"n": range(3)})
    file = TableFile(locate(memory.store))
    stored = file.current()
    assert stored.claim is not None
    # None: it has closed the table since.
    other = None if successor is None else replace(stored.claim, token="theirs", host=successor)
    file.write(replace(stored, claim=other))
    with pytest.raises(errors.ChainBusyError, match="it was taken over by"):
        rows.append(n=3)
    assert len(rows) == 3
    assert file.current().claim == other
    assert not locate(memory.store).exists("n/c/0")
    with pytest.raises(errors.ChainBusyError):
        rows.close()


def test_a_heartbeat_changes_neither_rows_nor_columns(fast_place: Place) -> None:
    rows = table.open(fast_place.store, {"n": int, "text": str})
    rows.append(n=0, text="a")
    rows.flush()
    writer = rows._writer
    assert writer in ending.open_writers()
    before = TableFile(locate(fast_place.store)).current()
    writer._beat()
    after = TableFile(locate(fast_place.store)).current()
    assert before.claim is not None
    assert after.claim is not None
    assert after.claim.token == before.claim.token
    assert after.claim.beat > before.claim.beat
    assert (after.rows, after.layout) == (1, before.layout)
    rows.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_is_refused_and_the_parent_continues(tmp_path: Path) -> None:
    rows = table.open(tmp_path / "t", {"n": int})
    rows.append(n=0)

    def child(pipe: Any) -> None:
        try:
            rows.append(n=1)
        except errors.ChainBusyError:
            pipe.send("busy")

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
    process.start()
    assert here.poll(60)
    assert here.recv() == "busy"
    process.join()
    rows.append(n=2)
    rows.close()
    assert table.open(tmp_path / "t", mode="a")["n"].tolist() == [0, 2]


# Readers beside a writer ----------------------------------------------------------------------


@pytest.mark.once("oldest")
def test_a_reader_beside_a_writer_finds_whole_rows(tmp_path: Path, script: Script) -> None:
    place = tmp_path / "t"
    columns = {
        "n": zt.Var(dtype=int, draws_per_chunk=16),
        "minus": zt.Var(draws_per_chunk=7),
        "pair": zt.Var(shape=2, dtype="int32", draws_per_chunk=5),
    }
    table.open(place, columns)
    writer = script.start(
        """
        import sys
        from zarrtrace.tables import table
        for opening in range(40):
            if opening % 10 == 9:
                sys.stdin.readline()
            # Closed and opened again: the journal comes and goes.
            with table.open(sys.argv[1], mode="a") as rows:
                for _ in range(53):
                    n = len(rows)
                    rows.append(n=n, minus=-n, pair=[n, 2 * n])
        """,
        place,
    )
    reader, seen, lengths = table.open(place, mode="r"), 0, set()
    waits = [9 * 53, 19 * 53, 29 * 53, 39 * 53]
    while writer.poll() is None:
        length = len(reader)
        if waits and length == waits[0]:
            # However fast it is: the next rows are appended while they are looked for.
            del waits[0]
            writer.stdin.write("\n")
            writer.stdin.flush()
        assert length >= seen
        seen = length
        lengths.add(length)
        found = {name: reader.read(name, slice(0, length)) for name in columns}
        numbers = np.arange(length)
        assert np.array_equal(found["n"], numbers)
        assert np.array_equal(found["minus"], -numbers)
        assert np.array_equal(found["pair"], np.stack([numbers, 2 * numbers], axis=1))
        dataset = reader.to_dataset()
        assert np.array_equal(dataset.n, np.arange(dataset.sizes["row"]))
    assert writer.communicate()[1] == ""
    assert writer.returncode == 0
    assert len(reader) == 40 * 53
    assert not waits
    assert len(lengths) > 3


def test_rows_are_read_in_every_direction(fast_place: Place) -> None:
    rows = table.open(fast_place.store, {"x": zt.Var(shape=(2, 3), draws_per_chunk=4)})
    values = np.arange(11 * 6, dtype=float).reshape(11, 2, 3)
    rows.append_rows({"x": values})
    lazy = rows.to_dataset()["x"]
    keys: list[Any] = [slice(None), slice(None, None, -1), slice(9, 2, -3), slice(3, 9, 2)]
    keys += [slice(5, 5), slice(-3, None), slice(100, None), slice(8, 1), slice(1, 8, -1)]
    for key in keys:
        assert np.array_equal(rows.read("x", key), values[key])
        assert np.array_equal(lazy.isel(row=key), values[key])
    for index in (0, 5, -1, [10, 0, 3], []):
        array = np.asarray(index, dtype=int)
        assert np.array_equal(lazy.isel(row=array), values[array])
        assert np.array_equal(lazy.isel(row=array, x_dim_1=-1), values[array][..., -1])
    assert np.array_equal(lazy.isel(row=2, x_dim_0=slice(None, None, -1)), values[2, ::-1])
    rows.close()


def test_threads_append_to_tables_side_by_side(tmp_path: Path) -> None:
    def fill(number: int) -> None:
        with table.open(tmp_path / f"t{number}", mode="a") as rows:
            for n in range(300):
                rows.append(n=n)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert table.open(tmp_path / f"t{number}", mode="a")["n"].tolist() == list(range(300))


# Damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[]", b'{"node_type": "group"}'])
@pytest.mark.parametrize("open", [False, True], ids=["closed", "killed"])
def test_a_table_whose_document_is_damaged_is_repaired_from_its_columns(
    tmp_path: Path, script: Script, content: bytes, open: bool
) -> None:
    place = tmp_path / "t"
    script.run(
        f"""
        import os, sys
        from zarrtrace.tables import table
        rows = table.open(sys.argv[1], {{"n": int, "x": float}})
        for n in range(5):
            rows.append(n=n, x=n / 2)
        if {open}:
            os._exit(0)
        """,
        place,
    )
    (place / "zarr.json").write_bytes(content)
    rows = table.open(place, mode="a")
    if content.startswith(b"{"):
        # Nobody can tell it from a table that was not made to the end.
        with pytest.raises(errors.TraceNotFoundError):
            table.open(place, mode="r")
        return
    assert [damage.path for damage in rows.check()] == ["zarr.json"]
    with pytest.raises(errors.DamagedTraceError, match=r"zarr\.json"):
        rows.append(n=5, x=2.5)
    assert any("5 rows" in line for line in rows.repair())
    assert rows.check() == []
    rows.append(n=5, x=2.5)
    assert rows["n"].tolist() == list(range(6))
    assert rows["x"].tolist() == [n / 2 for n in range(6)]
    rows.close()


def test_lost_rows_stay_lost_and_the_others_are_there(tmp_path: Path) -> None:
    columns = {"n": zt.Var(dtype=int, draws_per_chunk=2), "x": zt.Var(draws_per_chunk=2)}
    rows = table.open(tmp_path / "t", columns)
    rows.append_rows({"n": range(6), "x": np.arange(6.0)})
    rows.close()
    for name in columns:
        (tmp_path / "t" / name / "c.1").unlink()
    assert [d.draws for d in rows.check()] == [range(2, 4), range(2, 4)]
    assert all("lost" in line for line in rows.repair())
    assert np.isnan(rows["x"]).tolist() == [False, False, True, True, False, False]
    with pytest.raises(errors.DamagedTraceError, match=r"column 'n', rows 2 to 3: .* was lost"):
        rows["n"]
    assert rows.read("n", slice(4, None)).tolist() == [4, 5]
    rows.append(n=6, x=6.0)
    rows.close()
    assert zarr.open_array(tmp_path / "t" / "x").attrs["lost_rows"] == ["rows 2 to 3"]


def test_a_table_that_was_removed_does_not_come_back(tmp_path: Path) -> None:
    import shutil

    rows = table.open(tmp_path / "t", {"n": int})
    rows.append(n=0)
    shutil.rmtree(tmp_path / "t")
    with pytest.raises(errors.TraceNotFoundError, match="there is no table"):
        rows.close()
    assert not (tmp_path / "t").exists()


def test_a_trace_is_not_a_table(directory: Place) -> None:
    directory.create(chains=1, draws=2, posterior={"mu": 0.0})
    with pytest.raises(errors.TraceExistsError, match="holds a trace instead of a table"):
        table.open(directory.path, {"n": int})
    with pytest.raises(errors.TraceNotFoundError):
        zt.open(directory.path / "posterior")


# Tables of earlier versions -------------------------------------------------------------------


@pytest.fixture(params=["closed", "killed"])
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A table of ten rows as the version before stored it: a trace of one chain.

    One was closed, and has a column of text. The process of the other was killed, and its last
    four rows are in the journal alone.
    """
    with zipfile.ZipFile(STORED / f"trace_shaped_{request.param}.zip") as stored:
        stored.extractall(tmp_path / request.param)
    # It was stored long ago: its last writer is not waited for.
    for file in (tmp_path / request.param).rglob("*"):
        os.utime(file, (0, 0))
    return tmp_path / str(request.param)


def row(number: int, place: Path) -> dict[str, Any]:
    note = {"note": f"row {number}"} if place.name == "closed" else {}
    return {
        **{"draw": number, "loss": number / 2, "scales": [number, -number]},
        **{"ended": number % 3 == 0, "when": np.datetime64(number, "ms"), **note},
    }


def check_rows(place: Path, length: int) -> None:
    found, numbers = table.open(place, mode="r"), np.arange(length)
    assert len(found) == length
    assert found.attrs == {"model": "eight schools"}
    assert found.columns["loss"].attrs == {"units": "nats"}
    assert found["draw"].tolist() == numbers.tolist()
    assert found["loss"].tolist() == (numbers / 2).tolist()
    assert found["scales"].tolist() == np.stack([numbers, -numbers], axis=1).tolist()
    assert found["ended"].dtype == bool
    assert found["ended"].tolist() == (numbers % 3 == 0).tolist()
    assert found["when"].tolist() == numbers.astype("datetime64[ms]").tolist()
    dataset = found.to_dataset()
    assert dataset.scales.dims == ("row", "side")
    assert dataset.draw.values.tolist() == numbers.tolist()
    if place.name == "closed":
        assert found["note"].tolist() == [f"row {number}" for number in numbers]
        assert found.to_dataframe().note.tolist() == found["note"].tolist()


def test_a_table_of_the_version_before_is_read_as_it_is(earlier: Path) -> None:
    before = files_in(earlier)
    check_rows(earlier, 10)
    assert table.open(earlier, mode="a").check() == []
    assert files_in(earlier) == before


def test_a_table_of_the_version_before_takes_rows(earlier: Path) -> None:
    reader = table.open(earlier, mode="r")
    lazy = reader.to_dataset()
    rows = table.open(earlier, mode="a")
    for number in range(10, 14):
        rows.append(row(number, earlier))
    if earlier.name == "closed":
        rows.flush()
    check_rows(earlier, 14)
    assert reader["draw"].tolist() == list(range(14))
    assert lazy.loss.values.tolist() == [number / 2 for number in range(10)]
    rows.close()
    check_rows(earlier, 14)
    assert not (earlier / "_sampling_state").exists()
    check_that_every_file_belongs_to_an_array_or_a_group(earlier)
    assert rows.check() == []
    plain = xr.open_zarr(earlier, group="rows", consolidated=False, chunks=None)
    assert plain.draw.values.tolist() == list(range(14))


def test_a_table_of_the_version_before_is_repaired(earlier: Path) -> None:
    (earlier / "_sampling_state/draw_idx/c.0").write_bytes(b"damaged")
    (earlier / "rows/loss/c.0").write_bytes(b"damaged")
    rows = table.open(earlier, mode="a")
    if earlier.name == "closed":
        assert any("draw_idx" in damage.why for damage in rows.check())
    done = rows.repair()
    assert any("rows/loss" in line and "lost" in line for line in done)
    assert rows.check() == []
    assert rows.attrs == {"model": "eight schools"}
    assert np.isnan(rows["loss"]).tolist() == [True] * 4 + [False] * 6
    assert rows["draw"].tolist() == list(range(10))


@pytest.mark.once("newest")
@pytest.mark.parametrize("step", range(1, 30))
def test_a_conversion_that_is_killed_loses_no_row(
    earlier: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    from zarrtrace.store.location import Location

    steps = iter(range(1, step))

    class Killed(BaseException):
        pass

    def dying(method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(steps, None) is None:
                raise Killed
            return method(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("write", "delete_tree"):
            patch.setattr(Location, name, dying(getattr(Location, name)))
        killed = table.open(earlier, mode="a")
        with contextlib.suppress(Killed):
            killed.append(row(10, earlier))
    for writer in ending.open_writers():
        writer.close()
    length = len(table.open(earlier, mode="r"))
    assert length in (10, 11)
    check_rows(earlier, length)
    with table.open(earlier, mode="a") as rows:
        rows.append(row(length, earlier))
    check_rows(earlier, length + 1)


def test_a_table_that_the_version_before_has_open_is_not_converted(earlier: Path) -> None:
    if earlier.name == "closed":
        pytest.skip("it has no journal to lock")
    import fcntl

    before = files_in(earlier)
    with open(earlier / "_sampling_state/journal/c.0.0", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(errors.ChainBusyError):
            table.open(earlier, mode="a").append(row(10, earlier))
    assert files_in(earlier) == before
    check_rows(earlier, 10)


def test_a_killed_process_leaves_a_table_that_others_append_to(
    tmp_path: Path, script: Script
) -> None:
    place = tmp_path / "t"
    code = """
    import os, signal, sys
    from zarrtrace.tables import table
    rows = table.open(sys.argv[1], {"n": int, "x": float})
    for number in range(len(rows), len(rows) + 7):
        rows.append(n=number, x=-number)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    for _ in range(3):
        process = script.start(code, place)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    rows = table.open(place, mode="a")
    assert rows["n"].tolist() == list(range(21))
    rows.append(n=21, x=-21.0)
    rows.close()
    assert rows["x"].tolist() == [-n for n in range(22)]
    assert rows.check() == []
    check_that_every_file_belongs_to_an_array_or_a_group(place)


def test_a_table_of_version_1_is_continued_as_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(STORED / "version_1_killed.zip") as stored:
        stored.extractall(tmp_path)
    for name, text in (("numbers", False), ("words", True)):
        place = tmp_path / "version_1" / name
        # It was stored long ago: its last writer is not waited for.
        os.utime(place / "zarr.json", (0, 0))
        for length in (19, 25):
            numbers = np.arange(length)
            # A copy has what its journal says: rows of that version do not prove themselves.
            for found in (table.open(place), table.open(shutil.copytree(place, tmp_path / "copy"))):
                assert found["n"].tolist() == numbers.tolist()
                if text:
                    assert found["word"].tolist() == [f"row {n}" for n in numbers]
                else:
                    assert found["x"].tolist() == np.stack([numbers, -numbers], 1).tolist()
            shutil.rmtree(tmp_path / "copy")
            if length == 19:
                with table.open(place, mode="a") as continued:
                    for n in range(19, 25):
                        continued.append(n=n, **{"word": f"row {n}"} if text else {"x": [n, -n]})
        assert not table.open(place).check()
