"""What works on every store works on a real S3 server: one test for each thing that is done to it.

The other tests use an object store in memory, which takes the same way through the code.
"""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from conftest import Encoded

import zarrtrace as zt
from zarrtrace import folder as runs

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


def test_warmup_is_split(bucket: Place, recorded: zt.Trace, encoded: Encoded) -> None:
    recorded.split_warmup(6)
    encoded.check_split(bucket.open(), 6, TUNE + DRAWS)


def test_a_split_takes_few_requests(bucket: Place) -> None:
    """Of 30 draws of two chains and six variables: 50, one for each copy, two for each new cut."""
    encoded = Encoded()
    trace = encoded.fill(bucket.create(**encoded.groups, chains=2, tune=12, draws=18))
    requests: list[tuple[str, str, bool]] = []
    chunk = "/(mu|theta|word|lp|late|when)/c[./]"

    def sent(request: Any, **_: Any) -> None:
        requests.append((request.method, request.url, "x-amz-copy-source" in request.headers))

    events = trace._location.store.fs._s3.meta.events
    events.register("before-send.s3", sent)
    try:
        trace.split_warmup()
    finally:
        events.unregister("before-send.s3", sent)
    assert {method for method, _, _ in requests} == {"GET", "PUT", "POST"}
    copies = [url for _, url, is_copy in requests if is_copy]
    others = [url for _, url, is_copy in requests if not is_copy]
    moved = [url for url in others if re.search(chunk, url)]
    assert len(others) - len(moved) <= 50
    chunks = re.findall(chunk, " ".join(trace._location.keys("")))
    coordinates = 2 * 3 + 3
    # Beside the old ones, and in their place.
    assert len(copies) <= 2 * len(chunks) + coordinates
    assert len(moved) <= len(chunks)
    encoded.check_split(bucket.open(), 12, 30)


def test_a_name_with_brackets_is_no_pattern(bucket: Place) -> None:
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


def test_a_table_is_appended_to(bucket: Place) -> None:
    trace = bucket.create(chains=1, draws=1, posterior={"mu": 0.0})
    for start in (0, 3):
        with trace.table("history", {"step": int, "text": str}) as history:
            for step in range(start, start + 3):
                history.append(step=step, text=f"step {step}")
    found = bucket.open().table("history")
    assert found["step"].tolist() == list(range(6))
    assert found["text"].tolist() == [f"step {step}" for step in range(6)]


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
