"""A watcher sees what is recorded, whatever happens to the trace under it."""

from __future__ import annotations

import math
import shutil
import threading
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arviz as az
import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

import zarrtrace as zt
from zarrtrace.diagnostics.convergence import worst_rhat
from zarrtrace.goals.converged import look as look_at_goal
from zarrtrace.sampling_state.block import chain_blocks, read_claims
from zarrtrace.watching import exact, moments
from zarrtrace.watching import watcher as watcher_module
from zarrtrace.watching.forecast import Reached, time_left, time_to_goal
from zarrtrace.watching.progress import ChainLook, Progress, Stats
from zarrtrace.watching.watcher import Look, Watcher

if TYPE_CHECKING:
    from conftest import Place
    from scripts import Script


def watch(trace: zt.Trace, **options: Any) -> Watcher:
    return Watcher(trace._hierarchy, **options)


def split_rhats(trace: zt.Trace, names: list[str], look: Look) -> dict[str, float]:
    """Split R-hat by ArviZ of the draws that a look is of."""
    read = trace.get(names, chains=look.rhat_chains)
    found = {}
    for name, values in read.items():
        values = values[:, : look.rhat_draws].astype(float)
        rhat = az.rhat(
            xr.Dataset({"v": (("chain", "draw", *"ab"[: values.ndim - 2]), values)}), method="split"
        )["v"]
        for place, value in np.ndenumerate(rhat.values):
            label = f"{name}[{', '.join(map(str, place))}]" if place else name
            found[label] = float(value)
    return found


def check(trace: zt.Trace, look: Look, names: list[str]) -> None:
    """Assert that a look has the split R-hat of all scalars, which are few."""
    found = {value.name: value.split_rhat for value in look.values}
    if not look.rhat_draws or len(look.rhat_chains) < 2:
        assert all(map(math.isnan, found.values()))
        return
    expected = split_rhats(trace, names, look)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12, nan_ok=True), name


STEPS = st.one_of(
    st.tuples(st.just("record"), st.integers(0, 2), st.integers(1, 60)),
    st.tuples(st.just("go back"), st.integers(0, 2), st.integers(1, 20)),
    st.tuples(st.just("burn in"), st.just(0), st.integers(0, 60)),
    st.tuples(st.just("drop"), st.just(0), st.integers(1, 30)),
    st.tuples(st.just("look"), st.just(0), st.just(0)),
)


@settings(max_examples=25)
@example(
    steps=[
        ("record", 0, 1),
        ("go back", 1, 1),
        ("look", 0, 0),
        ("record", 2, 1),
        ("go back", 1, 1),
    ],
    seed=0,
)
@given(steps=st.lists(STEPS, max_size=15), seed=st.integers(0, 2**20))
def test_split_rhat_is_right_whatever_happens(steps: list[tuple[str, int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    trace = zt.create(
        None,
        chains=3,
        tune=5,
        draws=2000,
        posterior={
            "mu": zt.Var(draws_per_chunk=7),
            "theta": zt.Var(shape=(2, 2), draws_per_chunk=16),
            "k": zt.Var(dtype="int16"),
        },
        sample_stats={"lp": zt.Var(draws_per_chunk=5)},
    )
    names = ["mu", "theta", "k", "lp"]

    def record(writer: zt.ChainWriter, count: int) -> None:
        draws = {
            "mu": rng.normal(size=count),
            "theta": rng.normal(size=(count, 2, 2)),
            "k": rng.integers(0, 9, count),
        }
        writer.record_block(draws, {"lp": rng.normal(size=count)})

    for chain in range(3):
        with trace.writer(chain) as writer:
            record(writer, 40)
            writer.checkpoint({})
    watcher = watch(trace)
    for what, chain, number in steps:
        if what == "record":
            with trace.writer(chain) as writer:
                writer.resume()
                record(writer, number)
                writer.checkpoint({})
        elif what == "go back":
            with trace.writer(chain) as writer:
                writer.resume()
                record(writer, number)
            with trace.writer(chain) as writer:
                writer.resume()
                record(writer, 2 * number)
        elif what == "burn in":
            trace.set_burn_in(max(number, trace.dropped))
        elif what == "drop":
            trace.drop_before(number)
        else:
            check(trace, watcher.look(), names)
    check(trace, watcher.look(), names)


def test_what_is_looked_at_again_is_new(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = place.create(chains=2, draws=100, posterior={"x": zt.Var(), "y": zt.Var(shape=3)})
    added: list[int] = []
    add = moments.BlockMoments.add

    def counting(self: Any, chains: slice, columns: slice, start: int, values: Any) -> None:
        added.append(values.shape[1])
        add(self, chains, columns, start, values)

    monkeypatch.setattr(moments.BlockMoments, "add", counting)
    writers = [trace.writer(chain) for chain in range(2)]
    watcher = watch(place.open() if place.kind == "directory" else trace)
    for count in (30, 5, 0):
        for writer in writers:
            writer.record_block(
                {"x": np.random.normal(size=count), "y": np.random.normal(size=(count, 3))}
            )
            writer.flush()
        added.clear()
        look = watcher.look()
        assert added == [count] * (4 if count else 0)
        check(trace, look, ["x", "y"])
    trace.extend(50)
    added.clear()
    assert watcher.look().chains[0].planned == 150
    assert added == []
    trace.close()


RECORD = """
    import sys
    import numpy as np
    import zarrtrace as zt

    trace, chain = zt.open(sys.argv[1], "a"), int(sys.argv[2])
    rng = np.random.default_rng(chain)
    with trace.writer(chain) as writer:
        for number in range(int(sys.argv[3])):
            writer.record({"x": rng.normal()}, {"diverging": number % 10 == 0})
        print("ready", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.once("newest")
def test_a_chain_that_is_killed_is_named(directory: Place, script: Script) -> None:
    trace = directory.create(
        chains=3,
        tune=20,
        draws=100,
        posterior={"x": zt.Var()},
        sample_stats={"diverging": zt.Var(dtype=bool)},
    )
    watcher = watch(directory.open())
    started = [script.start(RECORD, directory.path, chain, 60) for chain in range(2)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    look = watcher.look()
    assert [chain.writer for chain in look.chains] == ["alive", "alive", "none"]
    assert [chain.phase for chain in look.chains] == ["sampling", "sampling", "waiting"]
    assert [chain.divergences for chain in look.chains[:2]] == [4, 4]
    assert look.rhat_chains == (0, 1)
    started[1].kill()
    started[1].wait()
    look = watcher.look()
    assert not look.is_dead
    [dead] = look.dead
    assert (dead.chains, dead.pid, dead.draws) == (range(1, 2), started[1].pid, 60)
    assert "writer(1).resume()" in dead.resume
    # One that ends well between the look at its claim and that at its process did not die.
    now = trace._now()
    claims = read_claims(chain_blocks(now.location, now.layout))
    started[0].communicate()
    ended, killed, _ = Progress().look(now, claims, Stats(3), 20)
    assert (ended.writer, killed.writer) == ("alive", "dead")
    assert watcher.look().is_dead
    started[1].communicate()
    with trace.writer(1) as writer:
        writer.resume()
        assert [chain.writer for chain in watcher.look().chains] == ["closed", "alive", "none"]


def test_a_watcher_survives_split_repair_and_finish(directory: Place) -> None:
    rng = np.random.default_rng(5)
    trace = directory.create(
        chains=2, tune=30, draws=70, posterior={"x": zt.Var(draws_per_chunk=8)}
    )
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"x": rng.normal(size=60)})
    watcher = watch(directory.open())
    check(trace, watcher.look(), ["x"])
    trace.split_warmup()
    check(trace, watcher.look(), ["x"])
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.resume()
            writer.record_block({"x": rng.normal(size=40)})
    look = watcher.look()
    assert (look.status, look.is_over) == ("complete", True)
    trace.finish()
    look = watcher.look()
    assert (look.status, look.rhat_draws) == ("finished", 68)
    check(trace, look, ["x"])
    [chunk] = directory.path.glob("posterior/x/*0.3")
    chunk.write_bytes(b"damaged")
    trace.repair()
    look = watcher.look()
    assert math.isnan(look.values[0].split_rhat)
    shutil.rmtree(directory.path)
    with pytest.raises(zt.errors.TraceNotFoundError):
        watcher.look()


@pytest.mark.once("oldest")
def test_a_damaged_chunk_is_named_and_the_rest_is_shown(directory: Place) -> None:
    rng = np.random.default_rng(6)
    trace = directory.create(
        chains=2,
        draws=50,
        posterior={"x": zt.Var(draws_per_chunk=10), "y": zt.Var(draws_per_chunk=10)},
    )
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"x": rng.normal(size=50), "y": rng.normal(size=50)})
    [chunk] = directory.path.glob("posterior/x/*1.2")
    chunk.write_bytes(b"damaged")
    look = watch(directory.open()).look()
    found = {value.name: value.split_rhat for value in look.values}
    assert math.isnan(found["x"])
    assert not math.isnan(found["y"])
    [note] = look.notes
    assert "posterior/x, chain 1, draws 20 to 29" in note


@pytest.mark.once("oldest")
@pytest.mark.parametrize(("asked", "planned"), [({"at": 60}, 60), ({"now": True}, 100)])
def test_a_run_that_was_asked_to_stop(
    directory: Place, asked: dict[str, Any], planned: int
) -> None:
    trace = directory.create(chains=2, draws=100, posterior={"x": zt.Var()})
    writers = [trace.writer(chain) for chain in range(2)]
    for writer in writers:
        writer.record_block({"x": np.arange(50.0)})
    watcher = watch(directory.open())
    trace.request_stop(**asked, reason="it is good")
    look = watcher.look()
    assert not look.is_over
    assert [chain.phase for chain in look.chains] == ["sampling", "sampling"]
    assert [chain.planned for chain in look.chains] == [planned, planned]
    assert any("asked to stop" in note and "it is good" in note for note in look.notes)
    for writer in writers:
        if "at" in asked:
            writer.record_block({"x": np.arange(10.0)})
        writer.close()
    look = watcher.look()
    assert look.is_over
    assert [chain.phase for chain in look.chains] == ["done", "done"]


@pytest.mark.once("oldest")
def test_traces_without_an_rhat_say_why() -> None:
    def looked(chains: int, count: int, **definition: Any) -> Look:
        trace = zt.create(None, chains=chains, tune=10, draws=50, **definition)
        values = {
            name: np.zeros((count, *(var.shape or ())), var.dtype)
            for name, var in definition["posterior"].items()
        }
        for chain in range(chains):
            with trace.writer(chain) as writer:
                writer.record_block(values)
        return watch(trace).look()

    x = {"x": zt.Var()}
    none = looked(2, 0, posterior=x)
    assert (none.status, none.rhat_draws, none.chains[0].phase) == ("new", 0, "waiting")
    warmup = looked(2, 5, posterior=x)
    assert (warmup.chains[0].phase, warmup.rhat_draws) == ("warmup", 0)
    few = looked(2, 13, posterior=x)
    assert (few.chains[0].phase, few.rhat_draws) == ("sampling", 0)
    alone = looked(1, 40, posterior=x)
    assert math.isnan(alone.worst_rhat)
    assert any("one chain alone" in note for note in alone.notes)
    odd = looked(
        2,
        40,
        posterior={
            "word": zt.Var(dtype=str),
            "z": zt.Var(dtype="complex128"),
            "yes": zt.Var(dtype=bool),
            "when": zt.Var(dtype="datetime64[s]"),
            "empty": zt.Var(shape=(0, 3)),
            "[red]a b\\x1b": zt.Var(shape=(2,)),
        },
    )
    assert any("word, z, when" in note for note in odd.notes)
    assert {value.name for value in odd.values} == {
        "yes", "[red]a b\\x1b[0]", "[red]a b\\x1b[1]",
    }  # fmt: skip
    with pytest.raises(zt.errors.VariableNotFoundError, match="no variable 'zz'"):
        watch(zt.create(None, chains=1, draws=1, posterior=x), var_names=["zz"])


def test_the_exact_values_are_those_of_arviz() -> None:
    rng = np.random.default_rng(8)
    x = np.cumsum(rng.normal(size=(2, 301)), axis=1)
    trace = zt.create(None, chains=2, draws=400, posterior={"x": zt.Var(), "fixed": zt.Var()})
    for chain, count in ((0, 301), (1, 250)):
        with trace.writer(chain) as writer:
            writer.record_block({"x": x[chain, :count], "fixed": np.full(count, 0.1)})
    look = watch(trace).look()
    found = {value.name: value.exact for value in look.values}
    dataset = xr.Dataset({"x": (("chain", "draw"), x[:, :250])})
    expected = [
        az.rhat(dataset)["x"],
        az.ess(dataset)["x"],
        az.ess(dataset, method="tail")["x"],
        az.mcse(dataset)["x"] / x[:, :250].std(ddof=1),
    ]
    assert look.exact_draws == 250
    assert found["x"][:4] == pytest.approx([float(value) for value in expected], rel=1e-12)
    assert look.worst_rhat == found["x"].rhat
    assert math.isnan(found["fixed"].rhat)


@pytest.mark.once("newest")
def test_elements_have_the_names_that_the_summary_gives_them(directory: Place) -> None:
    trace = directory.create(
        chains=2,
        draws=40,
        posterior={"theta": zt.Var(dims=("school", "side"), shape=(2, 2)), "mu": zt.Var()},
        coords={"school": ["Choate", "[b]a, b"]},
    )
    rng = np.random.default_rng(12)
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"theta": rng.normal(size=(40, 2, 2)), "mu": rng.normal(size=40)})
    names = set(trace.summary(progress=False).index)
    assert "theta[[b]a, b, 1]" in names
    assert {value.name for value in watch(directory.open()).look().values} == names
    assert worst_rhat(trace._hierarchy).variable in names
    assert look_at_goal(zt.Converged(var_names=["theta"]), trace._now()).rhat_of in names
    (directory.path / "posterior" / "school" / "zarr.json").write_text("{")
    assert "theta[1, 1]" in {value.name for value in watch(directory.open()).look().values}


def test_exact_values_are_computed_beside_the_looks(
    directory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = directory.create(chains=2, draws=300, posterior={"x": zt.Var()})
    rng = np.random.default_rng(13)

    def record(count: int) -> None:
        for writer in writers:
            writer.record_block({"x": rng.normal(size=count)})

    writers = [trace.writer(chain) for chain in range(2)]
    watcher = watch(directory.open())
    monkeypatch.setattr(watcher_module, "_SHARE", 0)
    record(100)
    # The first ones are waited for.
    assert watcher.look().exact_draws == 100
    may_read = threading.Event()
    read = exact.read_elements

    def waiting(*arguments: Any) -> Any:
        assert may_read.wait(60)
        return read(*arguments)

    monkeypatch.setattr(exact, "read_elements", waiting)
    for count in (100, 50):
        record(count)
        assert watcher.look().exact_draws == 100
    may_read.set()
    ends = time.monotonic() + 60
    while watcher.look().exact_draws == 100:
        assert time.monotonic() < ends
    record(50)
    look = watcher.look()
    # The last ones are those of all draws.
    assert (look.status, look.exact_draws) == ("complete", 300)
    expected = az.rhat(xr.Dataset({"x": (("chain", "draw"), trace.get("x"))}))["x"]
    assert look.values[0].exact is not None
    assert look.values[0].exact.rhat == pytest.approx(float(expected), rel=1e-12)
    trace.close()


@pytest.mark.once("oldest")
def test_a_copy_of_a_running_trace_says_what_is_seen(directory: Place, tmp_path: Path) -> None:
    trace = directory.create(chains=1, draws=100, posterior={"x": zt.Var(draws_per_chunk=8)})
    with trace.writer(0) as writer:
        writer.record_block({"x": np.arange(20.0)})
        writer.flush()
        here = watch(directory.open()).look()
        shutil.copytree(directory.path, tmp_path / "copy.zarr")
        copy = watch(zt.open(tmp_path / "copy.zarr")).look()
    assert not here.only_flushed
    assert copy.only_flushed
    assert copy.flushed is not None
    assert copy.flushed < 3600
    assert copy.chains[0].draws == 20
    memory = zt.create(None, chains=1, draws=9, posterior={"x": zt.Var()})
    assert watch(memory).look().only_flushed


def chain_look(**known: Any) -> ChainLook:
    unknown = dict.fromkeys(field.name for field in fields(ChainLook))
    return ChainLook(**{**unknown, "chains": range(1), "phase": "sampling", **known})


@pytest.mark.once("oldest")
def test_how_long_it_will_take() -> None:
    chains = [
        chain_look(draws=500, planned=1000, rate=10.0),
        chain_look(draws=400, planned=1000, rate=20.0),
    ]
    assert time_left(chains) == 50
    assert time_left([*chains, chain_look(draws=0, planned=1000, rate=None)]) is None
    assert time_left([chain_look(draws=9, planned=None, rate=1.0)]) is None
    dead = chain_look(draws=9, planned=1000, rate=1.0, writer="dead")
    assert time_left([*chains, dead]) is None
    goal = zt.Converged(rhat=1.01, ess=400)
    assert time_to_goal(goal, [Reached(500, 200.0)], [*chains, dead], 1.005) is None
    found = time_to_goal(goal, [Reached(400, 100.0), Reached(500, 200.0)], chains, 1.005)
    # Between 0.25 · 0.8 and 0.4 · 1.2 effective draws a draw, at 10 draws a second.
    assert found == pytest.approx(((400 / 0.48 - 500) / 10, (400 / 0.2 - 500) / 10))
    # R-hat - 1 has to become half as large.
    slower = time_to_goal(goal, [Reached(500, 900.0)], chains, 1.02)
    assert slower == pytest.approx((50, 50))
    assert time_to_goal(goal, [Reached(500, 900.0)], chains, 1.005) == (0, 0)
    assert time_to_goal(goal, [Reached(500, 5.0)], chains, 1.5) is None
    assert time_to_goal(goal, [], chains, 1.0) is None


@pytest.mark.once("oldest")
def test_the_largest_variables_are_watched_in_part() -> None:
    rng = np.random.default_rng(7)
    trace = zt.create(
        None, chains=2, draws=40, posterior={"small": zt.Var(), "large": zt.Var(shape=(50, 20))}
    )
    large = rng.normal(size=(2, 40, 50, 20))
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"small": rng.normal(size=40), "large": large[chain]})
    looks = [watch(trace, memory=2 * 32 * 2 * 8 * 101).look() for _ in range(2)]
    assert (looks[0].watched, looks[0].of_scalars) == (101, 1001)
    assert "101 of 1,001 scalars are watched" in looks[0].notes[0]
    assert [value.name for value in looks[0].values] == [value.name for value in looks[1].values]
    expected = split_rhats(trace, ["small", "large"], looks[0])
    for value in looks[0].values:
        assert value.split_rhat == pytest.approx(expected[value.name], rel=1e-12)
