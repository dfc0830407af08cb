"""NumPyro in blocks: NumPyro's own draws, none lost to a kill, and ArviZ's names."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

numpyro = pytest.importorskip("numpyro")

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from dying_runs import run_and_die
from numpyro.infer import HMC, MCMC, NUTS

import zarrtrace as zt
from zarrtrace.adapters.numpyro import sample
from zarrtrace.errors import InvalidInputError, TraceExistsError

if TYPE_CHECKING:
    from scripts import Script

pytestmark = pytest.mark.once("newest")

X = np.array([-1.5, -0.5, 0.5, 1.5])
Y = np.array([[-2.9, -1.0, 0.8, 3.2], [-3.4, -0.7, 1.3, 2.7]])
KEY = 7


def line(x: Any, y: Any = None) -> None:
    """Two lines through one point of origin."""
    a = numpyro.sample("a", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("site", 2, dim=-2):
        b = numpyro.sample("b", dist.Normal(0, 3))
        with numpyro.plate("time", 4, dim=-1):
            mean = numpyro.deterministic("mean", a + b * x)
            numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def mcmc(kernel: Any = None, **changes: Any) -> MCMC:
    settings: dict[str, Any] = {"num_warmup": 60, "num_samples": 50, "num_chains": 3}
    settings |= {"chain_method": "vectorized", "progress_bar": False} | changes
    # Compiled in a quarter of the time of NUTS.
    return MCMC(HMC(line, trajectory_length=1.0) if kernel is None else kernel, **settings)


def run(store: Any, runner: MCMC | None = None, **options: Any) -> zt.Trace:
    """The same program in almost every test, so that it is compiled once."""
    options = {"coords": {"time": [1, 2, 4, 8]}, "draws_per_block": 20} | options
    return sample(runner or mcmc(), store, jax.random.key(KEY), X, y=Y, **options)


def draws_of(trace: zt.Trace) -> dict[str, Any]:
    return {name: trace.get(name) for name in trace.posterior.data_vars}


def check_same_draws(trace: zt.Trace, expected: dict[str, Any]) -> None:
    found = draws_of(trace)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> zt.Trace:
    """A whole run, for the tests that only look at it."""
    path = tmp_path_factory.mktemp("numpyro") / "run.zarr"
    return run(path)


@pytest.fixture
def own_copy(finished: zt.Trace, tmp_path: Path) -> Path:
    """The whole run at a place of the test's own."""
    import shutil

    return Path(shutil.copytree(finished.path, tmp_path / "run.zarr"))


# The draws ------------------------------------------------------------------------------------


RUNS: dict[str, tuple[type[HMC], dict[str, Any], Any]] = {
    "NUTS, one chain": (NUTS, {"num_chains": 1}, jax.random.key),
    "HMC, thinned, with warmup, with a key of the old kind, together by jax.vmap": (
        # As many draws as steps of warmup: NumPyro compiles one program for both.
        HMC, {"num_samples": 60, "thinning": 2, "chain_method": jax.vmap}, jax.random.PRNGKey
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Some donated buffers:UserWarning")  # by NumPyro's own run
@pytest.mark.parametrize("name", RUNS)
def test_the_draws_are_those_of_numpyro(name: str) -> None:
    kernel, settings, make_key = RUNS[name]
    runner, key = mcmc(kernel(line), **settings), make_key(KEY)
    extra_fields = ("potential_energy", "num_steps")
    collect_warmup = "with warmup" in name
    warmup = None
    if collect_warmup:
        runner.warmup(key, X, y=Y, collect_warmup=True, extra_fields=extra_fields)
        warmup = jax.device_get(runner.get_samples(group_by_chain=True))
        key = runner.post_warmup_state.rng_key
    runner.run(key, X, y=Y, extra_fields=extra_fields)
    fields = jax.device_get(runner.get_extra_fields(group_by_chain=True))

    # Blocks that fit neither the warmup nor the draws, and the same MCMC used for both.
    options: dict[str, Any] = {"draws_per_block": 17, "collect_warmup": collect_warmup}
    trace = sample(runner, None, make_key(KEY), X, y=Y, **options)

    assert (trace.tune, trace.draws) == ((30, 30) if collect_warmup else (0, 50))
    if warmup is not None:
        check_draws_of_numpyro(trace, "warmup_posterior", warmup)
    samples = jax.device_get(runner.get_samples(group_by_chain=True))
    check_draws_of_numpyro(trace, "posterior", samples)
    np.testing.assert_allclose(trace.get("lp"), -fields["potential_energy"], rtol=1e-5)
    assert np.array_equal(trace.get("n_steps"), fields["num_steps"])
    assert np.array_equal(trace.get("diverging"), fields["diverging"])
    if kernel is NUTS:
        depth = np.floor(np.log2(fields["num_steps"])).astype(int) + 1
        assert np.array_equal(trace.get("tree_depth"), depth)


def check_draws_of_numpyro(trace: zt.Trace, group: str, expected: dict[str, Any]) -> None:
    """The same chains; the last digit of a value may depend on what it was compiled with."""
    assert set(trace[group]) == set(expected)
    for name, values in expected.items():
        found = trace.get(name, group=group)
        assert found.dtype == values.dtype
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_without_warmup_there_is_no_group_of_it(finished: zt.Trace) -> None:
    assert finished.groups == ("posterior", "sample_stats", "observed_data")


# Killed, and resumed --------------------------------------------------------------------------


def test_a_killed_run_continues_bit_for_bit(
    finished: zt.Trace, script: Script, tmp_path: Path
) -> None:
    path = tmp_path / "killed.zarr"
    die = partial(run_and_die, script, "test_numpyro", path)

    assert die("checkpoint", 3, after=True) == 0  # 40 of 60 steps of warmup
    # All draws are there, the state after the last of them is not: they will be drawn again.
    assert die("checkpoint", 4, after=False) == 50

    assert not zt.open(path).finished
    trace = run(path, draws_per_block=9)
    assert trace.finished
    check_same_draws(trace, draws_of(finished))
    assert trace.sample_stats.equals(finished.sample_stats)


def test_more_draws_are_those_of_the_longer_run(own_copy: Path) -> None:
    longer, at_once = (run(store, mcmc(num_samples=90)) for store in (own_copy, None))
    assert longer.finished
    assert longer.draws == 90
    check_same_draws(longer, draws_of(at_once))


def test_a_finished_run_is_given_back(own_copy: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in own_copy.rglob("*") if file.is_file()}
    trace = run(own_copy)
    assert trace.finished
    assert before == {f: f.stat().st_mtime_ns for f in own_copy.rglob("*") if f.is_file()}


# Another run ----------------------------------------------------------------------------------

OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"y": Y + 1}, r"model argument 'y': was float64 \(2, 4\)"),
    "an argument": ({"x": X * 2}, r"model argument 0"),
    "key": ({"key": 8}, r"rng_key"),
    "warmup": ({"num_warmup": 61}, r"num_warmup: was 60, is 61"),
    "chains": ({"num_chains": 2}, r"chains: was 3, is 2"),
    "kernel": ({"kernel": NUTS(line)}, r"kernel: was HMC, is NUTS"),
    "setting of the kernel": (
        {"kernel": HMC(line, trajectory_length=1.0, target_accept_prob=0.9)},
        r"kernel target_accept_prob: was 0\.8, is 0\.9",
    ),
    "labels": ({"coords": {"time": [1, 2, 3, 4]}}, r"coords of time"),
    "recorded warmup": ({"collect_warmup": True}, r"tune: was 0, is 60"),
    "stats": ({"extra_fields": ["i"]}, r"sample_stats/lp: was float32 \(\), is not there"),
    "fewer draws": ({"num_samples": 40}, r"was made for 50 draws, but 40 are requested"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_run_is_refused_and_says_what_differs(finished: zt.Trace, other: str) -> None:
    change, message = OTHERS[other]
    given: dict[str, Any] = {"coords": {"time": [1, 2, 4, 8]}, **change}
    key = jax.random.key(given.pop("key", KEY))
    x, y = given.pop("x", X), given.pop("y", Y)
    changed = {name: given.pop(name) for name in list(given) if name.startswith("num_")}
    runner = mcmc(given.pop("kernel", None), **changed)
    with pytest.raises(InvalidInputError, match=message):
        sample(runner, finished.path, key, x, y=y, **given)
    assert zt.open(finished.path).finished


def test_another_model_is_refused(finished: zt.Trace) -> None:
    def other(x: Any, y: Any = None) -> None:
        numpyro.sample("a", dist.Normal(0, 1).expand([2]))

    with pytest.raises(InvalidInputError) as caught:
        sample(mcmc(HMC(other)), finished.path, jax.random.key(KEY), X, y=Y)
    assert "posterior/a: was float32 (), is float32 (2,)" in str(caught.value)
    assert "posterior/b: was float32 (2, 1), is not there" in str(caught.value)


def test_the_trace_of_another_sampler_is_left_alone(tmp_path: Path) -> None:
    zt.create(tmp_path / "run.zarr", chains=3, draws=50, posterior={"a": 0.0})
    with pytest.raises(InvalidInputError, match="a trace of another kind"):
        sample(mcmc(), tmp_path / "run.zarr", jax.random.key(KEY), X, y=Y)


def test_what_is_not_a_trace_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(TraceExistsError):
        sample(mcmc(), tmp_path, jax.random.key(KEY), X, y=Y)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


# What is recorded -----------------------------------------------------------------------------


def test_plates_data_and_labels_reach_the_trace(finished: zt.Trace) -> None:
    posterior = finished.posterior
    assert posterior["mean"].dims == ("chain", "draw", "site", "time")
    assert posterior["b"].dims == ("chain", "draw", "site", "b_dim_1")
    assert posterior.time.values.tolist() == [1, 2, 4, 8]
    assert finished.observed_data.y.dims == ("site", "time")
    assert np.array_equal(finished.observed_data.y, Y)


def test_dims_and_options_of_the_user_come_first() -> None:
    trace = run(
        None,
        dims={"b": ["place", "one"]},
        coords={"place": ["north", "south"]},
        trace_options={"name": "lines", "attrs": {"inference_library": "mine"}},
    )
    assert trace.posterior["b"].dims == ("chain", "draw", "place", "one")
    assert trace.posterior.place.values.tolist() == ["north", "south"]
    assert trace.posterior.attrs["inference_library"] == "mine"
    assert trace.to_datatree().attrs["name"] == "lines"


def test_stats_have_the_names_arviz_knows(finished: zt.Trace) -> None:
    stats = finished.sample_stats
    assert {name: stats[name].dtype.name for name in stats} == {
        "acceptance_rate": "float32", "diverging": "bool", "energy": "float32", "lp": "float32",
        "n_steps": "int32", "step_size": "float32",
    }  # fmt: skip
    import arviz as az  # not above: the processes of this module need not wait for it

    data = finished.to_inferencedata()
    assert az.summary(data, var_names=["a", "sigma"]).index.tolist() == ["a", "sigma"]
    az.bfmi(data)  # reads the energy


def test_extra_fields_are_those_of_numpyro() -> None:
    fields = ["mean_accept_prob", "adapt_state.inverse_mass_matrix", "z.a", "~z.mean"]
    trace = sample(mcmc(), None, jax.random.key(KEY), X, y=Y, extra_fields=fields)
    stats = trace.sample_stats
    matrix = "adapt_state.inverse_mass_matrix.('a', 'b', 'sigma')"
    assert set(stats) == {"diverging", "mean_accept_prob", "z.a", matrix}
    assert stats[matrix].shape == (3, 50, 4)
    assert np.array_equal(stats["z.a"], trace.posterior["a"])
    assert set(trace.posterior) == {"a", "b", "sigma"}


def test_the_settings_are_kept_for_the_reader(finished: zt.Trace) -> None:
    attrs = finished.sample_stats.attrs
    assert attrs["inference_library"] == "numpyro"
    assert attrs["inference_library_version"] == numpyro.__version__
    assert json.loads(attrs["inference_library_settings"])["num_warmup"] == "60"


# Other kernels --------------------------------------------------------------------------------


def distance(point: Any) -> Any:
    return jnp.sum((point["u"] - 2) ** 2) + jnp.sum((point["v"]["w"] + 1) ** 2)


def test_a_potential_without_a_model_is_recorded_by_the_names_of_its_tree() -> None:
    runner = mcmc(HMC(potential_fn=distance), num_warmup=20, num_samples=30)
    start = {"u": np.zeros((3, 2)), "v": {"w": np.ones(3)}}
    runner.run(jax.random.key(KEY), init_params=start)
    expected = runner.get_samples(group_by_chain=True)
    trace = sample(runner, None, jax.random.key(KEY), init_params=start)
    assert {k: v.shape[2:] for k, v in trace.posterior.items()} == {"u": (2,), "v.w": ()}
    np.testing.assert_allclose(trace.get("u"), expected["u"], rtol=1e-5)
    np.testing.assert_allclose(trace.get("v.w"), expected["v"]["w"], rtol=1e-5)


# Bad input ------------------------------------------------------------------------------------


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="the state of HMC has no 'energie'; it has i, z"):
        sample(mcmc(), tmp_path / "run.zarr", jax.random.key(KEY), X, extra_fields=["energie"])
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runner": {"num_samples": 50, "thinning": 3}}, "num_samples is 50, .* use 48"),
        ({"draws_per_block": 0}, "draws_per_block must be a whole number from 1"),
        ({"extra_fields": "energy"}, r"use \['energy'\]"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    runner = mcmc(**changes.pop("runner", {}))
    with pytest.raises(InvalidInputError, match=message):
        sample(runner, None, jax.random.key(KEY), X, **changes)


def test_a_site_with_a_slash_is_stored_with_a_dot_and_keeps_its_name(tmp_path: Path) -> None:
    inside = numpyro.handlers.scope(line, "south")
    labels = {"south/time": [1, 2, 4, 8]}
    runner = mcmc(HMC(inside), num_warmup=5, num_samples=5)
    trace = sample(runner, tmp_path / "run.zarr", jax.random.key(KEY), X, y=Y, coords=labels)
    assert list(trace.posterior) == ["south.a", "south.b", "south.mean", "south.sigma"]
    assert trace.posterior["south.a"].attrs["name_in_model"] == "south/a"
    assert trace.posterior["south.mean"].dims[2:] == ("south.site", "south.time")
    assert trace.posterior["south.time"].values.tolist() == [1, 2, 4, 8]
    assert trace.observed_data["south.y"].dims == ("south.site", "south.time")
    assert trace.observed_data["south.y"].attrs["name_in_model"] == "south/y"


def test_two_sites_that_would_have_one_name_are_refused(tmp_path: Path) -> None:
    def model() -> None:
        for name in ("a/b", "a.b"):
            numpyro.sample(name, dist.Normal())

    with pytest.raises(InvalidInputError, match=r"'a\.b' and 'a/b' would both be stored as 'a\.b'"):
        sample(mcmc(HMC(model)), tmp_path / "run.zarr", jax.random.key(KEY))
