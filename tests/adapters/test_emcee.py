"""emcee's users change one import line, and lose nothing when they do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.errors import InvalidInputError, TraceNotFoundError

emcee = pytest.importorskip("emcee")
h5py = pytest.importorskip("h5py")

from outcomes import counts
from scripts import Script

from zarrtrace.adapters import emcee as backends
from zarrtrace.adapters.emcee import hdf

WALKERS, DIMENSIONS = 10, 3


def log_prob(x: np.ndarray) -> float:
    return -0.5 * float(np.sum(x**2))


def run(
    backend: Any, steps: int, log_prob: Callable[..., Any] = log_prob, **options: Any
) -> emcee.EnsembleSampler:
    np.random.seed(12)
    initial = np.random.randn(WALKERS, DIMENSIONS)
    sampler = emcee.EnsembleSampler(WALKERS, DIMENSIONS, log_prob, backend=backend, **options)
    sampler.run_mcmc(None if sampler.iteration else initial, steps)
    return sampler


def in_memory(steps: int, *arguments: Any, **options: Any) -> emcee.backends.Backend:
    return run(emcee.backends.Backend(), steps, *arguments, **options).backend


def same_values(one: Any, other: Any) -> bool:
    """Whether two arrays are the same bit for bit, but for the padding between fields."""
    if one.dtype.names:
        return all(same_values(one[name], other[name]) for name in one.dtype.names)
    return bool(one.tobytes() == other.tobytes())


def require_equal(ours: Any, theirs: Any) -> None:
    for name in ("chain", "log_prob", "blobs"):
        one, other = ours.get_value(name), theirs.get_value(name)
        if other is None:
            assert one is None
            continue
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert same_values(one, other), name
    assert np.array_equal(ours.accepted, theirs.accepted)
    for one, other in zip(ours.random_state, theirs.random_state, strict=True):
        assert np.array_equal(one, other)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run.zarr"
    for name in backends.list_names(tmp_path / "run.zarr"):
        backends.HDFBackend(tmp_path / "run.zarr", name).close()


# The same as emcee's --------------------------------------------------------------------------

# But for two, which remove the file or open it with h5py.
EXCEPT = "not test_multi_hdf5 and (not test_uninit or test_uninit_errors)"
REPLACE = """
import emcee.backends
from zarrtrace.adapters import emcee as ours
for name in ("HDFBackend", "TempHDFBackend", "get_test_backends"):
    setattr(emcee.backends, name, getattr(ours, name))
"""


@pytest.mark.once("oldest")
def test_emcees_own_tests_of_backends_pass(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(REPLACE)
    there = Path(emcee.__file__).parent / "tests"
    for name in ("unit/test_backends", "unit/test_blobs", "unit/test_sampler"):
        source = (there / f"{name}.py").read_text()
        (tmp_path / Path(f"{name}.py").name).write_text(source)
    source = (there / "integration/test_longdouble.py").read_text()
    (tmp_path / "test_longdouble.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", "-k", EXCEPT, "."],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    passed = int(done.stdout.split(" passed")[0].split()[-1])
    assert passed >= 80
    assert "2 deselected" in done.stdout


def vector(x: np.ndarray) -> tuple[float, np.ndarray]:
    return log_prob(x), x * 2


def many(x: np.ndarray) -> tuple[float, float, str, np.ndarray, bool, int]:
    return log_prob(x), x[0], f"walker {x[1]:.2f}", np.array([x[1], x[2]]), x[0] > 0, int(x[0] * 9)


MANY = [
    ("log_prior", np.longdouble),
    ("label", "U14"),
    ("pair", "f4", 2),
    ("positive", bool),
    ("lp", "i2"),
]
BLOBS: dict[str, tuple[Callable[..., Any], Any]] = {
    "none": (log_prob, None),
    "one": (lambda x: (log_prob(x), x[0]), None),
    "integer": (lambda x: (log_prob(x), int(x[0] * 9)), np.int32),
    "vector": (vector, None),
    "several": (lambda x: (log_prob(x), x[0], 0.1), None),
    "bytes": (lambda x: (log_prob(x), b"below" if x[0] < 0 else b"at"), "S5"),
    "text": (lambda x: (log_prob(x), "below" if x[0] < 0 else "at"), "U5"),
    "boolean": (lambda x: (log_prob(x), x[0] < 0), bool),
    "complex": (lambda x: (log_prob(x), complex(*x[:2])), None),
    "time": (lambda x: (log_prob(x), np.datetime64(int(x[0] * 100), "D")), "M8[D]"),
    "fields": (many, MANY),
}


@pytest.mark.once("oldest")
@pytest.mark.parametrize("kind", BLOBS)
def test_a_run_gives_what_emcees_own_backend_gives(path: Path, kind: str) -> None:
    function, dtype = BLOBS[kind]
    theirs = in_memory(12, function, blobs_dtype=dtype)
    ours = backends.HDFBackend(path)
    run(ours, 12, function, blobs_dtype=dtype)
    require_equal(ours, theirs)
    require_equal(backends.HDFBackend(path, read_only=True), theirs)
    last, expected = ours.get_last_sample(), theirs.get_last_sample()
    assert np.array_equal(last.coords, expected.coords)
    assert (last.blobs is None) == (expected.blobs is None)


@pytest.mark.once("oldest")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_positions_keep_their_dtype(path: Path, dtype: Any) -> None:
    ours, theirs = backends.HDFBackend(path, dtype=dtype), emcee.backends.Backend(dtype=dtype)
    run(ours, 5)
    run(theirs, 5)
    assert ours.get_chain().dtype == dtype
    assert np.array_equal(ours.get_chain(), theirs.get_chain())
    assert np.array_equal(ours.get_log_prob(), theirs.get_log_prob())
    assert backends.HDFBackend(path).dtype == dtype


@pytest.fixture(scope="module")
def twelve_steps(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[backends.HDFBackend, emcee.backends.Backend]]:
    """A run on both backends, for the tests that only read it."""
    with backends.HDFBackend(tmp_path_factory.mktemp("twelve") / "run.zarr") as ours:
        run(ours, 12)
        yield ours, in_memory(12)


@pytest.mark.once("oldest")
@pytest.mark.parametrize("discard", [0, 3, 11, 12, 40])
@pytest.mark.parametrize("thin", [1, 2, 5, 30])
@pytest.mark.parametrize("flat", [False, True])
def test_thinning_keeps_the_last_of_each_block(
    twelve_steps: tuple[Any, Any], discard: int, thin: int, flat: bool
) -> None:
    ours, theirs = twelve_steps
    expected = theirs.get_chain(discard=discard, thin=thin, flat=flat)
    assert np.array_equal(ours.get_chain(discard=discard, thin=thin, flat=flat), expected)


def test_several_names_in_one_directory(path: Path) -> None:
    one, two = backends.HDFBackend(path), backends.HDFBackend(path, name="second")
    run(one, 5)
    run(two, 7)
    chain = two.get_chain()
    one.reset(4, 2)
    assert backends.list_names(path) == ["mcmc", "second"]
    assert one.shape == (4, 2)
    assert np.array_equal(two.get_chain(), chain)
    with pytest.raises(AttributeError, match="has mcmc, second"):
        backends.HDFBackend(path, name="third").get_chain()


# A run continues --------------------------------------------------------------------------------


@pytest.mark.once("oldest")
def test_a_second_run_continues_bit_for_bit(path: Path) -> None:
    run(backends.HDFBackend(path), 15, vector)
    for _ in range(5):
        run(backends.HDFBackend(path), 1, vector)
    require_equal(backends.HDFBackend(path), in_memory(20, vector))


@pytest.mark.once("oldest")
def test_kills_lose_no_step_and_no_random_number(tmp_path: Path) -> None:
    harness = Path(__file__).with_name("harness_kill_emcee.py")
    command = [sys.executable, str(harness), "--kills", "3", "--steps", "1200"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    # The run that nobody kills comes last, and some may be over before they are killed.
    found = counts(done.stdout)
    assert found["kills"] == 3
    assert found["kills"] >= found["trials"] / 5


@pytest.mark.once("oldest")
@pytest.mark.parametrize("method", ["record", "checkpoint"])
def test_a_step_that_is_interrupted_has_not_happened(
    path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    run(backends.HDFBackend(path), 5)
    original, calls = getattr(zt.ChainWriter, method), []

    def interrupted(*arguments: Any, **options: Any) -> None:
        original(*arguments, **options)
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(zt.ChainWriter, method, interrupted)
    backend = backends.HDFBackend(path)
    with pytest.raises(KeyboardInterrupt):
        run(backend, 10)
    monkeypatch.undo()
    # emcee continues from what is stored; the interrupted step is drawn again.
    assert backend.iteration in (8, 9)
    run(backend, 20 - backend.iteration)
    require_equal(backend, in_memory(20))


def test_a_log_probability_that_raises_leaves_a_run_that_continues(path: Path) -> None:
    calls = []

    def sometimes(x: np.ndarray) -> float:
        calls.append(1)
        if len(calls) == 70:
            raise RuntimeError("no")
        return log_prob(x)

    with pytest.raises(RuntimeError):
        run(backends.HDFBackend(path), 30, sometimes)
    done = backends.HDFBackend(path).iteration
    assert 0 < done < 30
    run(backends.HDFBackend(path), 30 - done)
    require_equal(backends.HDFBackend(path), in_memory(30))


def test_a_run_continues_after_finish_and_a_burn_in_that_was_split_off(path: Path) -> None:
    run(backends.HDFBackend(path), 10, vector)
    trace = zt.open(path / "mcmc", mode="a")
    trace.split_warmup(4)
    require_equal(backends.HDFBackend(path), in_memory(10, vector))
    trace.finish()
    run(backends.HDFBackend(path), 5, vector)
    require_equal(backends.HDFBackend(path), in_memory(15, vector))
    assert zt.open(path / "mcmc").posterior.sizes["draw"] == 11
    assert np.array_equal(
        backends.HDFBackend(path).get_chain(discard=2, thin=3),
        in_memory(15, vector).get_chain(discard=2, thin=3),
    )


def test_a_run_for_no_steps_holds_nothing(path: Path) -> None:
    backend = backends.HDFBackend(path)
    run(backend, 3)
    backend.grow(0, None)
    zt.open(path / "mcmc", mode="a").finish()
    assert backend.iteration == 3


def test_backends_of_the_same_run_share_its_writer(path: Path) -> None:
    one, two = backends.HDFBackend(path), backends.HDFBackend(path)
    steps = emcee.EnsembleSampler(WALKERS, DIMENSIONS, log_prob, backend=one).sample(
        np.random.randn(WALKERS, DIMENSIONS), iterations=10
    )
    next(steps)
    assert two.iteration == 1
    run(two, 3)
    assert one.iteration == 4


# Read while it runs ---------------------------------------------------------------------------

STEPS = """
import sys
import emcee, numpy as np
from zarrtrace.adapters import emcee as backends

def log_prob(x):
    return -0.5 * float(np.sum(x**2))

np.random.seed(12)
initial = np.random.randn(10, 3)
backend = backends.HDFBackend(sys.argv[1])
sampler = emcee.EnsembleSampler(10, 3, log_prob, backend=backend)
for _ in sampler.sample(initial, iterations=200):
    if backend.iteration % 20 == 0 and backend.iteration < 200:
        sys.stdin.readline()
"""


@pytest.mark.once("oldest")
def test_another_process_reads_a_run_while_it_is_written(path: Path, script: Script) -> None:
    pause, busy = 20, False
    whole = in_memory(200).get_chain()
    process = script.start(STEPS, path)
    while process.poll() is None:
        backend = backends.HDFBackend(path, read_only=True)
        try:
            chain = backend.get_chain()
        except AttributeError:
            continue
        assert np.array_equal(chain, whole[: len(chain)])
        if len(chain) == 100 and not busy:
            busy = True
            with pytest.raises(zt.errors.ChainBusyError, match=str(process.pid)):
                run(backends.HDFBackend(path), 1)
        if len(chain) == pause < 200:
            # However fast it is: the next steps are stored while they are looked for.
            pause += 20
            process.stdin.write("\n")
            process.stdin.flush()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert busy
    assert backends.HDFBackend(path).iteration == 200


# ArviZ ----------------------------------------------------------------------------------------


def test_arviz_takes_the_backend(path: Path) -> None:
    az = pytest.importorskip("arviz")
    backend = backends.HDFBackend(path)
    sampler = run(backend, 20)
    of_backend = az.from_emcee(backend, var_names=["a", "b", "c"])
    of_sampler = az.from_emcee(sampler, var_names=["a", "b", "c"])
    assert np.array_equal(of_backend["posterior"]["b"], of_sampler["posterior"]["b"])
    assert dict(of_backend["posterior"]["b"].sizes) == {"chain": WALKERS, "draw": 20}


def test_parameters_have_names(path: Path) -> None:
    names = ["mass", "radius", "period"]
    backend = backends.HDFBackend(path, parameter_names=names)
    run(backend, 20, vector)
    assert backend.trace.posterior["x_dim"].values.tolist() == names
    tree = backend.to_datatree()
    assert list(tree["posterior"].data_vars) == names
    assert tree["posterior"].attrs["sampled_variables"] == names
    assert np.array_equal(tree["posterior"]["radius"], backend.get_chain()[..., 1].T)
    assert "blobs" in tree["sample_stats"]
    zt.open(path / "mcmc", mode="a").split_warmup(5)
    tree = backend.to_datatree(save_warmup=True)
    assert tree["warmup_posterior"]["period"].shape == (WALKERS, 5)
    with pytest.raises(ValueError, match="2 different names for 3"):
        backends.HDFBackend(path, "other", parameter_names=["a", "b"]).reset(WALKERS, DIMENSIONS)


def test_without_names_the_positions_stay_one_variable(path: Path) -> None:
    backend = backends.HDFBackend(path)
    run(backend, 3)
    assert list(backend.to_datatree()["posterior"].data_vars) == ["x"]


# From HDF5 ------------------------------------------------------------------------------------


@pytest.mark.once("oldest")
@pytest.mark.parametrize("kind", ["none", "vector", "several", "bytes"])
def test_an_hdf5_file_is_imported_and_continues(tmp_path: Path, path: Path, kind: str) -> None:
    function, dtype = BLOBS[kind]
    file = tmp_path / "run.h5"
    theirs = emcee.backends.HDFBackend(file)
    run(theirs, 12, function, blobs_dtype=dtype)
    emcee.backends.HDFBackend(file, name="empty").reset(4, 2)
    assert backends.import_hdf(file, path) == ["empty", "mcmc"]
    ours = backends.HDFBackend(path)
    require_equal(ours, theirs)
    run(ours, 8, function, blobs_dtype=dtype)
    require_equal(ours, in_memory(20, function, blobs_dtype=dtype))
    assert backends.HDFBackend(path, "empty").shape == (4, 2)
    with pytest.raises(zt.errors.TraceExistsError):
        backends.import_hdf(file, path)
    assert ours.iteration == 20


@pytest.mark.once("oldest")
@pytest.mark.parametrize("kind", ["none", "vector", "several", "bytes"])
def test_an_exported_hdf5_file_continues(tmp_path: Path, path: Path, kind: str) -> None:
    function, dtype = BLOBS[kind]
    run(backends.HDFBackend(path, "deep/er"), 12, function, blobs_dtype=dtype)
    backends.HDFBackend(path, "empty").reset(4, 2)
    file = tmp_path / "run.h5"
    assert backends.export_hdf(path, file) == ["deep/er", "empty"]
    theirs = emcee.backends.HDFBackend(str(file), "deep/er")
    require_equal(theirs, in_memory(12, function, blobs_dtype=dtype))
    assert backends.import_hdf(file, tmp_path / "again.zarr") == ["deep/er", "empty"]
    require_equal(backends.HDFBackend(tmp_path / "again.zarr", "deep/er"), theirs)
    run(theirs, 8, function, blobs_dtype=dtype)
    require_equal(theirs, in_memory(20, function, blobs_dtype=dtype))
    assert emcee.backends.HDFBackend(str(file), "empty").shape == (4, 2)
    with pytest.raises(zt.errors.TraceExistsError):
        backends.export_hdf(path, file)


@pytest.mark.once("oldest")
def test_what_hdf5_cannot_hold_leaves_no_file(tmp_path: Path, path: Path) -> None:
    run(backends.HDFBackend(path), 2, BLOBS["text"][0], blobs_dtype="U5")
    with pytest.raises(InvalidInputError, match="HDF5 cannot store blobs of the type <U5"):
        backends.export_hdf(path, tmp_path / "run.h5")
    with pytest.raises(InvalidInputError, match="there are no runs in this directory"):
        backends.export_hdf(tmp_path / "nowhere", tmp_path / "other.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.zarr"]


@pytest.mark.once("oldest")
@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_another_process_makes_meanwhile_stays(
    tmp_path: Path, path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(backends.HDFBackend(path), 2)
    target, real = tmp_path / "run.h5", hdf._export_run
    # What a killed export of an earlier version has left.
    (tmp_path / "run.h5.partial").write_text("not ours")

    def and_another_process(*arguments: Any) -> None:
        real(*arguments)
        target.write_text("theirs")

    def no_links(*names: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(hdf, "_export_run", and_another_process)
    with pytest.raises(zt.errors.TraceExistsError):
        backends.export_hdf(path, target)
    assert target.read_text() == "theirs"
    monkeypatch.setattr(hdf, "_export_run", real)
    target.unlink()
    backends.export_hdf(path, target)
    require_equal(emcee.backends.HDFBackend(str(target)), in_memory(2))
    assert {entry.name for entry in tmp_path.iterdir()} == {"run.zarr", "run.h5", "run.h5.partial"}
    with pytest.raises(zt.errors.NotWritableError, match=r"nowhere/run\.h5: no file can be made"):
        backends.export_hdf(path, tmp_path / "nowhere" / "run.h5")


def test_a_file_without_runs_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(zt.errors.InvalidInputError, match=r"other\.h5 has no runs"):
        backends.import_hdf(tmp_path / "other.h5", tmp_path / "run.zarr")


# Bad input ------------------------------------------------------------------------------------


def test_a_backend_that_is_read_only_writes_nothing(path: Path) -> None:
    run(backends.HDFBackend(path), 3)
    backend = backends.HDFBackend(path, read_only=True)
    for write in (
        lambda: backend.reset(3, 2),
        lambda: backend.grow(3, None),
        lambda: run(backend, 1),
    ):
        with pytest.raises(RuntimeError, match="read-only"):
            write()
    assert backend.iteration == 3


def test_another_number_of_walkers_is_refused(path: Path) -> None:
    run(backends.HDFBackend(path), 3)
    with pytest.raises(ValueError, match="incompatible"):
        emcee.EnsembleSampler(12, DIMENSIONS, log_prob, backend=backends.HDFBackend(path))
    assert backends.HDFBackend(path).iteration == 3


@pytest.mark.once("oldest")
@pytest.mark.parametrize("blobs", [None, np.zeros(WALKERS), np.zeros((WALKERS, 2))])
def test_blobs_that_change_are_refused(path: Path, blobs: Any) -> None:
    backend = backends.HDFBackend(path)
    run(backend, 3, vector)
    state = backend.get_last_sample()
    state.blobs = blobs
    with pytest.raises(ValueError, match="blobs"):
        backend.grow(1, blobs)
    backend.grow(1, np.zeros((WALKERS, 3)))
    with pytest.raises(ValueError, match="blobs"):
        backend.save_step(state, np.ones(WALKERS, dtype=bool))
    require_equal(backend, in_memory(3, vector))


def test_a_string_that_is_longer_than_its_type_is_refused(path: Path) -> None:
    backend = backends.HDFBackend(path)
    run(backend, 3, BLOBS["text"][0], blobs_dtype="U5")
    state = backend.get_last_sample()
    state.blobs = np.full(WALKERS, "too long for this")
    with pytest.raises(ValueError, match=r"<U17 does not fit <U5.*blobs_dtype"):
        backend.save_step(state, np.ones(WALKERS, dtype=bool))
    assert backend.iteration == 3


def test_python_objects_are_refused_before_anything_is_stored(path: Path) -> None:
    with pytest.raises(zt.errors.SchemaError, match="blobs_dtype"):
        run(backends.HDFBackend(path), 3, lambda x: (log_prob(x), {"a": 1}), blobs_dtype=object)


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.h5"
    run(emcee.backends.HDFBackend(file), 3)
    with pytest.raises(zt.errors.TraceExistsError, match="import_hdf"):
        run(backends.HDFBackend(file), 3)
    assert emcee.backends.HDFBackend(file).iteration == 3


def test_a_trace_of_another_kind_is_named_and_left_alone(path: Path) -> None:
    zt.create(path / "mcmc", chains=1, draws=1, posterior={"x": zt.Var()})
    with pytest.raises(zt.errors.InvalidInputError, match="not made by this backend"):
        run(backends.HDFBackend(path), 3)
    assert zt.open(path / "mcmc").chains == 1


def test_thinning_by_nothing_is_refused(path: Path) -> None:
    backend = backends.HDFBackend(path)
    run(backend, 3)
    with pytest.raises(ValueError, match="thin"):
        backend.get_chain(thin=0)


@pytest.mark.parametrize("compression", ["gzip", 1, None])
def test_compression_is_named_as_in_h5py(path: Path, compression: str | int | None) -> None:
    backend = backends.HDFBackend(path, compression=compression, compression_opts=2)
    run(backend, 3)
    text = (path / "mcmc/posterior/x/zarr.json").read_text()
    assert ('"gzip"' in text) == (compression is not None)


# The names of parameters and of runs ----------------------------------------------------------


def test_a_run_refuses_other_parameter_names(path: Path) -> None:
    names = ["mass", "radius", "age"]
    run(backends.HDFBackend(path, parameter_names=names), 5)
    other = backends.HDFBackend(path, parameter_names=["radius", "mass", "age"])
    with pytest.raises(InvalidInputError, match=r"mass, radius, age, and .* radius, mass, age"):
        run(other, 5)
    assert backends.HDFBackend(path).iteration == 5
    # With the same names, or none, it continues; a reset takes others.
    run(backends.HDFBackend(path, parameter_names=names), 5)
    run(backends.HDFBackend(path), 5)
    assert list(backends.HDFBackend(path).to_datatree()["posterior"]) == names
    other.reset(WALKERS, DIMENSIONS)
    run(other, 5)
    assert list(other.to_datatree()["posterior"]) == ["radius", "mass", "age"]


def test_a_run_without_names_can_be_read_under_names(path: Path) -> None:
    run(backends.HDFBackend(path), 5)
    named = backends.HDFBackend(path, parameter_names=["mass", "radius", "age"])
    assert list(named.to_datatree()["posterior"]) == ["mass", "radius", "age"]


def test_runs_are_listed_by_their_whole_names_and_a_backend_says_where_it_is(path: Path) -> None:
    backend = backends.HDFBackend(path, "first/long")
    assert "nothing stored yet" in repr(backend)
    run(backend, 5)
    assert f"{WALKERS} walkers × 5 steps of {DIMENSIONS} parameters" in repr(backend)
    assert zt.open(path).path == backend.path  # the only one
    run(backends.HDFBackend(path, "second"), 5)
    assert backends.list_names(path) == ["first/long", "second"]
    with pytest.raises(TraceNotFoundError, match="holds 2 traces: first/long, second"):
        zt.open(path)
    assert not backends.HDFBackend(path, "first").initialized
