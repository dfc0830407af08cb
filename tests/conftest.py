"""Stores that every promise is tried on: memory, a directory, and an object store in memory."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scripts import FreshScript, Script

import zarrtrace as zt
from zarrtrace.store.dtypes import as_dtype

if TYPE_CHECKING:
    import xarray as xr
    from playwright.sync_api import Browser

# One process per test is busy enough on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Tests do not depend on how fast a machine is, nor on how they were started.

    The processes that tests start have from this one: JAX compiles a program once for all of them;
    and Ctrl-C interrupts them, even where a shell started this one in the background, which ignores
    it.
    """
    from hypothesis import HealthCheck, settings

    slow = [HealthCheck.too_slow]
    settings.register_profile("any machine", deadline=None, suppress_health_check=slow)
    settings.load_profile("any machine")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The workers of xdist share the folder of the process that started them.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.TemporaryDirectory(
            prefix="zarrtrace-compiled-", ignore_cleanup_errors=True
        )
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--trials", type=int, default=None, help="size of the harnesses, small by default"
    )
    parser.addoption(
        "--half",
        choices=["oldest", "newest"],
        help="leave out the tests that are marked to run once, on the other one of two Pythons; "
        "and those of the documentation and the benchmarks, which `-m apart` chooses",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the other half has or what runs apart, and begin with what takes long."""
    half = config.getoption("--half")
    has_apart = half is None or config.getoption("markexpr") == "apart"
    left_out = []
    for item in items:
        if not has_apart and item.get_closest_marker("apart") is not None:
            left_out.append(item)
            continue
        mark = item.get_closest_marker("once")
        assert mark is None or mark.args in (("oldest",), ("newest",)), (
            f"{item.nodeid}: once on which Python?"
        )
        python = kind_once(item) if mark is None else mark.args[0]
        if half is not None and python not in (None, half):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def kind_once(item: pytest.Item) -> str | None:
    """The Python that runs a test of both for a kind of store: a directory is tried on both."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    kind = str(parameters.get("place", parameters.get("fast_place")))
    return {"memory": "oldest", "objects": "newest"}.get(kind)


def pytest_collection_finish() -> None:
    """Leave the modules, half a million objects that stay, out of each collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> int | None:
    """How often a harness tries, when the command line says it."""
    found: int | None = request.config.getoption("--trials")
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium of the system, or the one that Playwright has installed."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Place:
    """Where a test puts its trace: how to create one there and open it again."""

    kind: str
    store: Any
    options: dict[str, Any] = field(default_factory=dict)
    created: zt.Trace | None = None

    def create(self, **definition: Any) -> zt.Trace:
        self.created = zt.create(self.store, **self.options, **definition)
        return self.created

    def open(self, mode: Any = "r") -> zt.Trace:
        return zt.open(self.store, mode, **self.options)

    @property
    def path(self) -> Path:
        assert self.kind == "directory"
        return Path(self.store)


@pytest.fixture
def directory(tmp_path: Path) -> Place:
    return Place("directory", tmp_path / "run.zarr")


@pytest.fixture
def memory() -> Place:
    from zarr.storage import MemoryStore

    return Place("memory", MemoryStore())


@pytest.fixture
def objects() -> Place:
    """An object store in memory: it is asked as a remote one is, many keys at a time."""
    from obstore.store import MemoryStore
    from zarr.storage import ObjectStore

    return Place("objects", ObjectStore(MemoryStore()))


@pytest.fixture
def bucket(s3_server: str) -> Place:
    """A URL on an S3 server, through s3fs: for what only a real server shows, since it is slow."""
    return Place(
        "bucket",
        f"s3://traces/{uuid.uuid4().hex}.zarr",
        {
            "storage_options": {
                "key": "test",
                "secret": "test",
                "client_kwargs": {"endpoint_url": s3_server, "region_name": "us-east-1"},
            }
        },
    )


@pytest.fixture(params=["memory", "directory", "objects"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of store in turn."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["memory", "directory"])
def fast_place(request: pytest.FixtureRequest) -> Place:
    """The stores that are asked key by key, for wide inputs."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A moto server in a process of its own, with a bucket `traces`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(endpoint, server)
        request = urllib.request.Request(f"{endpoint}/traces", method="PUT", data=b"")
        request.add_header("Host", f"127.0.0.1:{port}")
        with urllib.request.urlopen(request, timeout=10):
            pass
        yield endpoint
    finally:
        server.terminate()
        server.wait()


def _wait_for(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        assert server.poll() is None, "the S3 server ended at once"
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the S3 server did not answer")


# Other readers -------------------------------------------------------------------------------


def open_plainly(store: Any, **options: Any) -> xr.DataTree | None:
    """What xarray alone makes of a trace; None where it refuses one that is not finished."""
    import xarray as xr
    from zarr.errors import MetadataValidationError

    with warnings.catch_warnings():
        # Only `finish` writes consolidated metadata.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            return xr.open_datatree(store, engine="zarr", chunks=None, **options)
        except MetadataValidationError as error:
            if "zarrtrace_unfinished" not in str(error):
                raise
            return None


# Draws that say which draw they are ---------------------------------------------------------


class Encoded:
    """Traces in which every value is `1e6 * chain + draw`, in variables of every kind.

    Their chunks have different lengths, and a draw is counted from the start of its chain: a value
    out of place, a fill value or a torn draw cannot be mistaken for what was recorded.
    """

    def __init__(self, *, text: bool = True) -> None:
        word = {"word": zt.Var(dtype=str, draws_per_chunk=5)} if text else {}
        self.groups = {
            "posterior": {
                "mu": zt.Var(draws_per_chunk=4),
                "theta": zt.Var(shape=3, dtype="int32", draws_per_chunk=3),
                **word,
            },
            "sample_stats": {
                "lp": zt.Var(draws_per_chunk=5),
                "late": zt.Var(dtype=bool, draws_per_chunk=2),
                "when": zt.Var(dtype="datetime64[s]", draws_per_chunk=7),
            },
        }

    def create(self, store: Any, **definition: Any) -> zt.Trace:
        """A trace without draws; `store` is a Place, or what `zarrtrace.create` takes."""
        definition = {**self.groups, **definition}
        return (
            store.create(**definition)
            if isinstance(store, Place)
            else zt.create(store, **definition)
        )

    def fill(self, trace: zt.Trace, *stops: int) -> zt.Trace:
        """Record each block of chains up to its stop; the last stop is that of all further ones."""
        stops = stops or (trace.tune + trace.draws,)
        for number, block in enumerate(trace.blocks):
            with trace.writer(block) as writer:
                self.record(writer, block, stops[min(number, len(stops) - 1)])
        return trace

    def record(self, writer: zt.ChainWriter, block: int | range, stop: int) -> None:
        """Go on recording until the chain, or the block of chains, has `stop` draws."""
        start, _ = writer.resume()
        for draw in range(start, stop):
            writer.record(**self.draw(block, draw))

    def draw(self, block: int | range, draw: int) -> dict[str, dict[str, Any]]:
        """The values of one draw of one chain, or of a block of chains."""
        chains = [block] if isinstance(block, int) else list(block)
        values = {
            group: {
                name: encode(chains, [draw], as_dtype(var.dtype, name), var.shape)[:, 0]
                for name, var in variables.items()
            }
            for group, variables in self.groups.items()
        }
        if isinstance(block, int):
            values = {g: {k: v[0] for k, v in named.items()} for g, named in values.items()}
        return values

    def check(self, group: xr.Dataset, start: int, stop: int, chains: Any = None) -> None:
        """Assert that a group holds the draws from `start` to `stop - 1`, and nothing else."""
        chains = list(range(group.sizes["chain"])) if chains is None else list(chains)
        assert group.chain.values.tolist() == chains
        assert group.draw.values.tolist() == list(range(stop - start))
        for name, array in group.data_vars.items():
            found = array.values
            assert array.dims[:2] == ("chain", "draw")
            assert found.dtype == array.dtype
            expected = encode(chains, range(start, stop), array.dtype, array.shape[2:])
            assert np.array_equal(found, expected), f"{name}: {found} is not {expected}"

    def check_split(self, trace: Any, at: int, stop: int) -> None:
        """Assert that the first `at` draws are warmup, and those from there to `stop` are not.

        `trace` is a Trace, or a DataTree that plain xarray opened.
        """
        for name in ("posterior", "sample_stats"):
            self.check(trace[name], at, stop)
            assert (f"warmup_{name}" in trace) == bool(at)
            if at:
                self.check(trace[f"warmup_{name}"], 0, at)


def encode(chains: Any, draws: Any, dtype: np.dtype[Any], shape: Any = ()) -> Any:
    """The values of some draws: shape (chains, draws, *shape)."""
    shape = () if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
    numbers = 1_000_000 * np.asarray(chains)[:, None] + np.asarray(draws)[None, :]
    numbers = np.broadcast_to(
        numbers.reshape(*numbers.shape, *(1 for _ in shape)), (*numbers.shape, *shape)
    )
    if dtype.kind == "b":
        return numbers % 3 == 1
    if dtype.kind == "M":
        return numbers.astype("datetime64[s]").astype(dtype)
    return numbers.astype(str).astype(dtype) if dtype.kind == "T" else numbers.astype(dtype)


@pytest.fixture
def encoded() -> Encoded:
    return Encoded()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


@pytest.fixture
def fresh_script(tmp_path: Path) -> FreshScript:
    return FreshScript(tmp_path)


@pytest.fixture(scope="session")
def compiled_before() -> Callable[..., None]:
    """Calls a function that samples with PyMC in a fork of this process, once.

    From PyMC 6 on functions are compiled by Numba, and those loaded from its cache round
    differently than in the process that compiled them. Runs that are compared all have to load.
    """

    @functools.cache
    def compile(function: Callable[..., object], *arguments: Any, **options: Any) -> None:
        if int(importlib.metadata.version("pymc").split(".")[0]) < 6:
            return
        child = os.fork()
        if child == 0:
            try:
                warnings.simplefilter("ignore")
                function(*arguments, **options)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, "the run to compile for failed"

    return compile
