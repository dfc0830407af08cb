"""Stores of other kinds: wrapped, refused early, silent, gone; what a URL lacks is said."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import zarr
from obstore.store import LocalStore as ObstoreLocal
from obstore.store import MemoryStore as ObstoreMemory
from zarr.storage import LoggingStore, MemoryStore, ObjectStore, WrapperStore, ZipStore

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError, NotWritableError, TraceError

X: dict[str, Any] = {"chains": 1, "draws": 3, "posterior": {"x": zt.Var()}}


def recorded(store: Any, **definition: Any) -> zt.Trace:
    trace = zt.create(store, **X, **definition)
    with trace.writer(0) as writer:
        writer.record_block({"x": [0.0, 1.0, 2.0]})
    return trace


def wrappers(store: Any) -> list[Any]:
    found = [LoggingStore(store, log_level="ERROR"), WrapperStore(store)]
    try:
        from zarr.experimental.cache_store import CacheStore
    except ImportError:
        return found
    return [*found, CacheStore(store, cache_store=MemoryStore())]


def test_a_wrapper_waits_if_the_store_in_it_does() -> None:
    for inner in (ObjectStore(ObstoreMemory()), MemoryStore()):
        recorded(inner).finish()
        for store in wrappers(inner):
            assert zt.open(store).get("x").tolist() == [[0, 1, 2]]


def test_nothing_is_looked_for_below_a_file(tmp_path: Path) -> None:
    trace = recorded(ObjectStore(ObstoreLocal(tmp_path)), observed_data={"y": [1.0]})
    # On this store to ask for a key below a file is an error, of a kind of its own.
    (tmp_path / "posterior" / ".DS_Store").write_bytes(b"")
    trace.finish()
    assert zt.open(tmp_path).finished
    assert "observed_data" in repr(trace)
    assert trace.check() == []


def test_a_zip_that_could_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotWritableError, match="cannot take draws"):
        zt.create(ZipStore(tmp_path / "run.zip", mode="w"), **X)
    assert not (tmp_path / "run.zip").exists()


@pytest.mark.parametrize(("url", "packages"), [("gs://b/r", "gcsfs"), ("abfs://b/r", "adlfs")])
@pytest.mark.parametrize("act", [zt.open, lambda url: zt.create(url, **X)])
def test_a_package_that_a_url_lacks_is_named(act: Any, url: str, packages: str) -> None:
    with pytest.raises(InvalidInputError, match=f"pip install fsspec {packages}"):
        act(url)


class Broken(WrapperStore[Any]):
    """A store whose server does what a test says."""

    act: Any = None

    async def get(self, *args: Any, **options: Any) -> Any:
        if self.act is not None:
            await self.act()
        return await super().get(*args, **options)

    async def set(self, *args: Any, **options: Any) -> None:
        if self.act is not None:
            await self.act()
        await super().set(*args, **options)


async def never() -> None:
    await asyncio.sleep(3600)


async def gone() -> None:
    raise ConnectionResetError("the server is gone")


async def other() -> None:
    raise KeyError("an error of some library")


@pytest.mark.parametrize("act", [never, gone, other])
def test_a_server_that_is_silent_or_gone_ends_in_an_error_of_ours(act: Any) -> None:
    store = Broken(ObjectStore(ObstoreMemory()))
    trace = recorded(store)
    writer = zt.create(store, **X, overwrite=True).writer(0)
    store.act = act
    with zarr.config.set({"async.timeout": 0.2}):
        with pytest.raises(TraceError, match=r"answered|gone|some library"):
            trace.get("x")
        with pytest.raises(NotWritableError, match=r"answered|gone|some library"):
            writer.record_block({"x": [0.0, 1.0, 2.0]})
    store.act = None
    writer.close()
    with zt.open(store, "a").writer(0) as writer:
        start, _ = writer.resume()
        writer.record_block({"x": [0.0, 1.0, 2.0][start:]})
    assert zt.open(store).get("x").tolist() == [[0, 1, 2]]


def test_a_server_that_accepts_and_never_answers_is_not_waited_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": address}}
        silent = pytest.raises(TraceError, match="has not answered for")
        with zarr.config.set({"async.timeout": 0.5}), silent:
            zt.open("s3://bucket/run.zarr", storage_options=options)


def test_the_engine_takes_the_options_of_a_url_and_chunks() -> None:
    import xarray as xr

    url = "memory://engine.zarr"
    recorded(url).finish()
    tree = xr.open_datatree(url, engine="zarrtrace", storage_options={}, chunks={})
    assert tree["posterior"].x.chunks
    data = xr.open_dataset(url, engine="zarrtrace", storage_options={}, chunks={})
    assert data.x.values.tolist() == [[0, 1, 2]]


def test_a_tree_is_written_in_the_second_format_of_zarr(tmp_path: Path) -> None:
    import xarray as xr

    trace = recorded(None, observed_data={"y": [1.0, 2.0]}, coords={"s": [1, 2]})
    trace.finish()
    trace.to_datatree().to_zarr(tmp_path / "v2.zarr", zarr_format=2)
    found = xr.open_datatree(tmp_path / "v2.zarr", engine="zarr")
    assert found["observed_data"].y.values.tolist() == [1, 2]


def test_a_failed_chain_is_summed_up_by_its_error_and_the_first_line() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def chain(number: int, trace: zt.Trace) -> None:
        error = ValueError("cholesky failed:\nthe matrix is not positive definite")
        error.add_note("a note")
        raise error

    with pytest.raises(zt.errors.ChainsFailedError, match="ValueError: cholesky failed:\n"):
        zt.run(chain, zt.create(None, **X), executor=ThreadPoolExecutor(1), progress=False)
