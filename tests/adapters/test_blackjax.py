"""BlackJAX in blocks: the draws its kernels make, none lost to a kill, and ArviZ's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

blackjax = pytest.importorskip("blackjax")

import jax
import jax.numpy as jnp
from dying_runs import run_and_die

import zarrtrace as zt
from zarrtrace.adapters.blackjax import sample
from zarrtrace.adopt import rename_stats
from zarrtrace.errors import InvalidInputError

if TYPE_CHECKING:
    from scripts import Script

pytestmark = pytest.mark.once("oldest")

KEY = 11
POSITIONS = {"mu": np.array([0.0, 1.0, -1.0], "f4"), "z": np.ones((3, 2), "f4")}


def log_density(position: Any) -> Any:
    return -0.5 * (position["mu"] - 3) ** 2 - jnp.sum((position["z"] - position["mu"]) ** 2)


def metropolis() -> tuple[Any, Any]:
    """The step, and the states of three chains."""
    kernel = blackjax.rmh(log_density, blackjax.mcmc.random_walk.normal(0.3 * jnp.eye(3)))
    return kernel.step, jax.vmap(kernel.init)(POSITIONS)


def run(store: Any, draws: int = 50, **options: Any) -> zt.Trace:
    step, states = metropolis()
    settings: dict[str, Any] = {"draws": draws, "tune": 10, "progress": False} | options
    return sample(step, store, settings.pop("key", jax.random.key(KEY)), states, **settings)


def check_same_draws(trace: zt.Trace, expected: zt.Trace) -> None:
    for group in ("posterior", "sample_stats", "warmup_posterior", "warmup_sample_stats"):
        assert trace[group].equals(expected[group]), group


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> zt.Trace:
    """A whole run, for the tests that only look at it."""
    return run(tmp_path_factory.mktemp("blackjax") / "run.zarr")


# The draws ------------------------------------------------------------------------------------


def test_the_draws_are_those_of_the_kernel(finished: zt.Trace) -> None:
    step, states = metropolis()
    take_step = jax.jit(jax.vmap(step))
    for number in range(60):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(KEY), number), 3)
        states, info = take_step(keys, states)
        group, draw = ("warmup_", number) if number < 10 else ("", number - 10)
        kept = finished[f"{group}posterior"].isel(draw=draw)
        stats = finished[f"{group}sample_stats"].isel(draw=draw)
        for name in ("mu", "z"):
            np.testing.assert_allclose(kept[name], states.position[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(stats.lp, states.logdensity, rtol=1e-4, atol=1e-4)
        assert stats.is_accepted.values.tolist() == info.is_accepted.tolist()


def test_the_length_of_the_blocks_does_not_matter(finished: zt.Trace) -> None:
    check_same_draws(run(None, draws_per_block=7), finished)


def test_thinning_keeps_the_last_step_of_each_draw(finished: zt.Trace) -> None:
    thinned = run(None, draws=20, tune=0, thinning=3)
    assert np.array_equal(thinned.get("mu")[:, 4:], finished.get("mu")[:, 4:50:3])


def test_one_chain_is_a_chain() -> None:
    step, states = metropolis()
    one = jax.tree.map(lambda value: value[:1], states)
    trace = sample(step, None, jax.random.key(KEY), one, draws=20, progress=False)
    assert trace.posterior.z.shape == (1, 20, 2)
    assert len(np.unique(trace.get("mu"))) > 5


# Killed, and resumed --------------------------------------------------------------------------


def test_a_killed_run_continues_bit_for_bit(
    finished: zt.Trace, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each process compiles for itself, as those of users do.
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    path = tmp_path / "killed.zarr"
    # The draws are there, the state after them is not: they will be drawn again.
    assert run_and_die(script, "test_blackjax", path, "record_block", 2, after=True) == 40
    check_same_draws(run(path, draws_per_block=9), finished)


def test_ctrl_c_keeps_the_blocks(
    finished: zt.Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: zt.ChainWriter, state: Any) -> None:
        original(self, state)
        if state["steps"] == 40:
            raise KeyboardInterrupt

    original = zt.ChainWriter.checkpoint
    with monkeypatch.context() as patched:
        patched.setattr(zt.ChainWriter, "checkpoint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run.zarr", draws_per_block=20)
    assert zt.open(tmp_path / "run.zarr").recorded.tolist() == [40, 40, 40]
    check_same_draws(run(tmp_path / "run.zarr"), finished)


def test_more_draws_are_those_of_the_longer_run(tmp_path: Path) -> None:
    run(tmp_path / "run.zarr")
    check_same_draws(run(tmp_path / "run.zarr", draws=80), run(None, draws=80))


def test_parameters_that_were_kept_count(tmp_path: Path) -> None:
    def run_with(scale: float) -> zt.Trace:
        build = blackjax.mcmc.random_walk.build_additive_step()

        def step(key: Any, state: Any, scale: Any) -> Any:
            def move(key: Any, position: Any) -> Any:
                return jax.tree.map(lambda x: scale * jax.random.normal(key, x.shape), position)

            return build(key, state, log_density, move)

        return sample(
            step, tmp_path / "run.zarr", jax.random.key(KEY), metropolis()[1], draws=20,
            parameters={"scale": jnp.full(3, scale)}, progress=False,
        )  # fmt: skip

    moved = np.abs(np.diff(run_with(1e-3).get("mu"))).max()
    assert 0 < moved < 0.01
    # As after a warmup that was run again on another machine.
    assert run_with(1e-3 + 1e-9).draws == 20


# Another run, bad input -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": jax.random.key(12)}, "rng_key: was"),
        ({"tune": 5}, "tune: was 10, is 5"),
        ({"thinning": 2}, "thinning: was 1, is 2"),
        ({"draws": 40}, "was made for 50 draws, but 40 are requested"),
        ({"dims": {"z": ["place"]}}, r"dims of z: was not there, is \('place',\)"),
        ({"posterior": lambda state: {"w": state.position["z"]}}, r"posterior/w: was not there"),
    ],
)
def test_another_run_is_refused_and_says_what_differs(
    finished: zt.Trace, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        run(finished.path, **change)
    assert finished.recorded.tolist() == [60, 60, 60]


def test_another_state_is_refused(tmp_path: Path) -> None:
    step, states = metropolis()

    def start_with(state: Any) -> None:
        sample(
            lambda key, both: ((step(key, both[0])[0], both[1]), {}),
            tmp_path / "run.zarr",
            jax.random.key(KEY),
            state,
            draws=50,
            posterior=lambda both: both[0].position,
            sample_stats=lambda both, info: {},
            draws_per_block=20,
            progress=False,
        )

    start_with((states, jnp.zeros(3)))
    zt.open(tmp_path / "run.zarr", mode="a").extend(draws=10)
    with pytest.raises(InvalidInputError, match=r"was float32 \(3,\), here it is int32 \(3,\)"):
        sample(
            lambda key, both: ((step(key, both[0])[0], both[1]), {}),
            tmp_path / "run.zarr", jax.random.key(KEY), (states, jnp.zeros(3, "int32")),
            draws=60, posterior=lambda both: both[0].position, sample_stats=lambda both, info: {},
            progress=False,
        )  # fmt: skip


def test_states_without_chains_are_refused() -> None:
    kernel = blackjax.rmh(log_density, blackjax.mcmc.random_walk.normal(jnp.eye(3)))
    state = kernel.init({"mu": 0.0, "z": jnp.ones(2)})
    with pytest.raises(InvalidInputError, match=r"jax\.vmap\(kernel\.init\)"):
        sample(kernel.step, None, jax.random.key(KEY), state, draws=5)


def test_a_state_without_position_asks_for_one() -> None:
    class Point(NamedTuple):
        x: Any

    with pytest.raises(InvalidInputError, match="a Point has no position; choose what to record"):
        sample(
            lambda key, state: (state, {}), None, jax.random.key(KEY), Point(jnp.ones(2)), draws=5
        )


@pytest.mark.parametrize("name", ["thinning", "draws_per_block"])
def test_counts_are_whole_numbers(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(InvalidInputError, match=f"{name} must be a whole number from 1, got 0"):
        run(None, **options)


def test_draws_are_thinned_before_they_are_recorded_and_not_twice() -> None:
    with pytest.raises(InvalidInputError, match="give thinning= instead of thin"):
        run(None, trace_options={"thin": 2})


# What is recorded -----------------------------------------------------------------------------


def test_values_labels_and_settings_reach_the_trace() -> None:
    trace = run(
        None,
        posterior=lambda state: {"top": jnp.max(state.position["z"]), "z": state.position["z"]},
        dims={"z": ["place"]},
        coords={"place": ["north", "south"]},
        trace_options={"observed_data": {"y": [1.0, 2.0]}, "name": "places"},
    )
    assert set(trace.posterior) == {"top", "z"}
    assert np.array_equal(trace.get("top"), trace.get("z").max(axis=-1))
    assert trace.posterior.place.values.tolist() == ["north", "south"]
    assert trace.observed_data.y.values.tolist() == [1.0, 2.0]
    attrs = trace.posterior.attrs
    assert attrs["inference_library"] == "blackjax"
    assert json.loads(attrs["inference_library_settings"])["state"] == "RWState"


def test_a_bare_array_is_x() -> None:
    kernel = blackjax.mala(lambda x: -jnp.sum(x**2), 0.1)
    states = jax.vmap(kernel.init)(jnp.ones((2, 3)))
    trace = sample(kernel.step, None, jax.random.key(KEY), states, draws=5, progress=False)
    assert trace.posterior.x.shape == (2, 5, 3)


def test_the_stats_of_nuts_have_the_names_arviz_knows() -> None:
    kernel = blackjax.nuts(log_density, 0.5, jnp.ones(3))
    states = jax.vmap(kernel.init)(POSITIONS)
    trace = sample(kernel.step, None, jax.random.key(KEY), states, draws=5, progress=False)
    assert {name: trace.sample_stats[name].dtype.name for name in trace.sample_stats} == {
        "acceptance_rate": "float32", "diverging": "bool", "energy": "float32",
        "is_turning": "bool", "lp": "float32", "n_steps": "int32", "tree_depth": "int32",
    }  # fmt: skip


def test_a_name_of_arviz_is_never_given_twice() -> None:
    given = {"logp": 1, "lp": 2, "depth": 3, "treedepth__": 4, "potential_energy": 5, "mine": 6}
    assert rename_stats(given) == {
        "logp": 1, "lp": 2, "tree_depth": 3, "treedepth__": 4, "potential_energy": 5, "mine": 6
    }  # fmt: skip
