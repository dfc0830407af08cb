"""What works on every store works on a real S3 server: one test for each thing that is done to it.

The other tests use an object store in memory, which takes the same way through the code.
"""

from __future__ import annotations

import json
import pickle
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import xarray as xr
from conftest import Encoded
from scripts import FreshScript

import zarrtrace as zt
from zarrtrace import folder as runs
from zarrtrace.store.locate import locate
from zarrtrace.store.zarr_json import read_document

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Place

TUNE, DRAWS = 4, 5


@pytest.fixture
def encoded(encoded: Encoded) -> Encoded:
    """Three variables only: each request takes some 10 ms of this process and the server."""
    for name, kept in (("posterior", ("mu", "word")), ("sample_stats", ("lp",))):
        encoded.groups[name] = {kind: encoded.groups[name][kind] for kind in kept}
    return encoded


@pytest.fixture
def recorded(bucket: Place, encoded: Encoded) -> zt.Trace:
    """A complete trace of two chains in one block."""
    trace = encoded.create(bucket, chains=2, chains_per_chunk=2, tune=TUNE, draws=DRAWS)
    return encoded.fill(trace)


@pytest.mark.once("oldest")
def test_a_trace_is_created_once(bucket: Place, encoded: Encoded) -> None:
    with pytest.raises(zt.errors.TraceNotFoundError):
        bucket.open()
    encoded.create(bucket, chains=2, draws=3)
    assert bucket.open().recorded.tolist() == [0, 0]
    with pytest.raises(zt.errors.TraceExistsError):
        encoded.create(bucket, chains=2, draws=3)
    encoded.create(bucket, chains=1, draws=3, overwrite=True)
    assert bucket.open().recorded.tolist() == [0]


def test_draws_are_recorded_and_count_once_they_are_flushed(
    bucket: Place, encoded: Encoded
) -> None:
    trace = encoded.create(bucket, chains=1, draws=20)
    with trace.writer(0) as writer:
        encoded.record(writer, 0, 7)
        assert bucket.open().recorded.tolist() == [0]
        writer.flush()
        assert bucket.open().recorded.tolist() == [7]
        encoded.record(writer, 0, 8)
    with trace.writer(0) as writer:
        assert writer.resume() == (8, None)
    encoded.check(bucket.open().posterior, 0, 8)


def test_draws_are_read(bucket: Place, recorded: zt.Trace, encoded: Encoded) -> None:
    encoded.check_split(bucket.open(), TUNE, TUNE + DRAWS)
    last = bucket.open().get("mu", draws=slice(-3, None))
    assert last.tolist() == [[6.0, 7.0, 8.0], [1000006.0, 1000007.0, 1000008.0]]
    assert bucket.open().check() == []


@pytest.mark.once("newest")
def test_warmup_is_split(bucket: Place, recorded: zt.Trace, encoded: Encoded) -> None:
    recorded.split_warmup(6)
    encoded.check_split(bucket.open(), 6, TUNE + DRAWS)


class Request(NamedTuple):
    method: str
    url: str
    is_copy: bool


@contextmanager
def requests_of(trace: zt.Trace) -> Iterator[list[Request]]:
    """The requests that the file system of a trace sends to the server while the block runs."""
    requests: list[Request] = []

    def sent(request: Any, **_: Any) -> None:
        is_copy = "x-amz-copy-source" in request.headers
        requests.append(Request(request.method, request.url, is_copy))

    events = trace._location.store.fs._s3.meta.events
    events.register("before-send.s3", sent)
    try:
        yield requests
    finally:
        events.unregister("before-send.s3", sent)


@pytest.mark.once("oldest")
def test_a_split_takes_few_requests(bucket: Place) -> None:
    """A split of 30 draws takes 44, and one for each copied chunk and two for each cut one."""
    encoded = Encoded()
    trace = encoded.fill(bucket.create(**encoded.groups, chains=2, tune=12, draws=18))
    chunk = r"/(mu|theta|word|lp|late|when)/(c[./])?\d+[./]"
    with requests_of(trace) as requests:
        trace.split_warmup()
    assert {request.method for request in requests} == {"GET", "PUT", "POST"}
    copies = [request for request in requests if request.is_copy]
    others = [request.url for request in requests if not request.is_copy]
    moved = [url for url in others if re.search(chunk, url)]
    assert len(others) - len(moved) <= 44
    chunks = re.findall(chunk, " ".join(trace._location.keys("")))
    coordinates = 2 * 3 + 3
    # Beside the old ones, and in their place.
    assert len(copies) <= 2 * len(chunks) + coordinates
    assert len(moved) <= len(chunks)
    encoded.check_split(bucket.open(), 12, 30)


@pytest.mark.once("oldest")
def test_a_look_takes_few_requests(bucket: Place, recorded: zt.Trace) -> None:
    """Three for each writer before its first flush, and none for each array of a finished group."""
    running = zt.create(
        f"{bucket.store}2", chains=4, draws=3, posterior={"x": 0.0}, **bucket.options
    )
    with requests_of(running) as requests:
        repr(running)
    # The layout, a request to stop, the tables; last rows, count and claim of each writer.
    assert len(requests) <= 3 + 3 * 4
    recorded.finish()
    with requests_of(recorded) as requests:
        posterior = bucket.open().posterior
        assert posterior.sizes == {"chain": 2, "draw": DRAWS}
    # The layout twice, and all documents of the group in one list.
    assert len(requests) <= 3
    with requests_of(recorded) as requests:
        assert posterior.mu.values[0].tolist() == list(range(TUNE, TUNE + DRAWS))
    # The layout at the beginning and at the end, what finish kept, and the chunks.
    assert len(requests) <= 3 + len(recorded._location.keys("posterior/mu")) - 1


@pytest.mark.once("oldest")
def test_what_was_written_since_is_seen(bucket: Place, recorded: zt.Trace) -> None:
    """Also when the directory was listed before; s3fs keeps such lists for ever."""
    recorded.finish()
    assert bucket.open().groups[:2] == ("posterior", "sample_stats")
    options = bucket.options["storage_options"]
    # Another instance of the file system, as another process has one.
    of_another = {**options, "default_block_size": 2**20}
    added = xr.Dataset({"z": ("draw", np.arange(DRAWS))})
    for group, mode in (("added", "w"), ("posterior", "a")):
        added.to_zarr(
            bucket.store,
            group=group,
            mode=mode,
            zarr_format=3,
            consolidated=False,
            storage_options=of_another,
        )
    document = read_document(recorded._location, "posterior/mu") or {}
    text = json.dumps({**document, "attributes": {"units": "m"}}, indent=2)
    recorded._location.write("posterior/mu/zarr.json", text.encode())
    found = bucket.open()
    assert "added" in found.groups
    assert found.posterior.mu.attrs == {"units": "m"}
    assert found.posterior.z.values.tolist() == list(range(DRAWS))
    assert found.posterior.mu.values.shape == (2, DRAWS)


@pytest.mark.once("newest")
@pytest.mark.parametrize("start", ["nothing", "unfinished"])
def test_one_of_several_processes_creates(
    bucket: Place, fresh_script: FreshScript, start: str
) -> None:
    if start == "unfinished":
        dying = f"""
            import os
            import zarrtrace as zt
            from zarrtrace.store.location import Location

            Location.write_many = lambda *_: os._exit(9)
            zt.create(
                {bucket.store!r}, chains=2, draws=3, posterior={{"x": 0.0}}, **{bucket.options!r}
            )
        """
        process = fresh_script.start(dying)
        process.communicate(timeout=120)
        assert process.returncode == 9
        with pytest.raises(zt.errors.TraceNotFoundError):
            bucket.open()
    code = f"""
        import sys
        import zarrtrace as zt

        print("ready", flush=True)
        sys.stdin.readline()
        trace = zt.create(
            {bucket.store!r}, chains=2, draws=3, posterior={{"x": 0.0}}, if_exists="open",
            **{bucket.options!r},
        )
        print(trace._hierarchy.layout.identity)
    """
    processes = [fresh_script.start(code, stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], found
    made = {output.strip() for output, _ in found}
    assert made == {bucket.open()._layout.identity}
    # The marks that decided who continues are gone.
    state = locate(bucket.store, **bucket.options).children("_sampling_state")
    assert not [name for name in state if name.startswith("successor")]


@pytest.mark.parametrize("kind", ["bucket", "objects"])
def test_a_key_is_created_once(kind: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(kind)
    location = locate(place.store, **place.options)
    assert location.create("a/zarr.json", b"first")
    assert not location.create("a/zarr.json", b"second")
    assert bytes(location.read("a/zarr.json") or b"") == b"first"


@pytest.mark.once("newest")
def test_a_name_with_brackets_is_not_a_pattern(bucket: Place) -> None:
    """To s3fs it is one, which removes another key or none."""
    posterior = {"x[0]": zt.Var(draws_per_chunk=2), "x0": zt.Var(draws_per_chunk=2)}
    trace = bucket.create(chains=1, tune=4, draws=4, posterior=posterior)
    with trace.writer(0) as writer:
        writer.record_block({name: np.arange(8.0) for name in posterior})
    trace.split_warmup()
    for name in posterior:
        assert bucket.open().get(name).tolist() == [[4.0, 5.0, 6.0, 7.0]]
        assert len(trace._location.keys(f"posterior/{name}")) == 3
    assert trace._location.keys("_sampling_state/split") == []


def test_a_finished_trace_opens_in_xarray(
    bucket: Place, recorded: zt.Trace, encoded: Encoded
) -> None:
    recorded.finish()
    assert bucket.open().finished
    plain = xr.open_datatree(
        bucket.store, engine="zarr", storage_options=bucket.options["storage_options"]
    )
    encoded.check_split(plain, TUNE, TUNE + DRAWS)


@pytest.mark.once("newest")
def test_a_table_is_appended_to(bucket: Place) -> None:
    trace = bucket.create(chains=1, draws=1, posterior={"mu": 0.0})
    for start in (0, 3):
        with trace.table("history", {"step": int, "text": str}) as history:
            for step in range(start, start + 3):
                history.append(step=step, text=f"step {step}")
    found = bucket.open().table("history")
    assert found["step"].tolist() == list(range(6))
    assert found["text"].tolist() == [f"step {step}" for step in range(6)]


@pytest.mark.once("newest")
def test_a_journal_on_a_local_disk(bucket: Place, tmp_path: Path) -> None:
    trace = bucket.create(chains=1, draws=20, posterior={"mu": 0.0}, journal=tmp_path)
    writer = trace.writer(0)
    for i in range(9):
        writer.record({"mu": i})
    assert bucket.open().recorded.tolist() == [9]
    writer._release()
    with trace.writer(0) as writer:
        assert writer.resume() == (9, None)
    trace.finish()
    assert not list(tmp_path.rglob("c.*"))
    assert bucket.open().get("mu").tolist() == [list(map(float, range(9)))]


def test_a_trace_is_sent_as_its_address(bucket: Place, encoded: Encoded) -> None:
    trace = encoded.create(bucket, chains=1, draws=3)
    sent = pickle.dumps(trace)
    assert len(sent) < 1000
    encoded.fill(pickle.loads(sent))
    assert trace.recorded.tolist() == [3]
    assert np.array_equal(trace.get("mu"), [[0.0, 1.0, 2.0]])


def test_runs_are_listed(bucket: Place) -> None:
    folder = str(bucket.store).removesuffix(".zarr")
    definition = {"chains": 1, "draws": 1, "posterior": {"x": 0.0}}
    runs.create(folder, "one", settings={"tau": 1}, **definition, **bucket.options)
    found = runs.open(folder, **bucket.options)
    assert found.names == ("one",)
    assert found["one"].settings == {"tau": 1}
    assert found["one"].status == "new"
