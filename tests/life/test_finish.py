"""Promise 2 at the end: a finished trace is right for xarray, ArviZ and any Zarr reader."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import arviz as az
import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import Encoded, Place, open_plainly
from killed_at_a_step import Killed, killed_at, made_again
from zarr.errors import MetadataValidationError

import zarrtrace as zt
from zarrtrace.errors import ChainError, IncompleteTraceError
from zarrtrace.store.dtypes import as_labels

ARVIZ_1 = int(az.__version__.split(".")[0]) >= 1
CHAINS, TUNE, DRAWS = 4, 50, 200
NAMES = ["mu", "theta"]


def sampled(place: Place, **more: Any) -> tuple[zt.Trace, dict[str, np.ndarray]]:
    """A trace of an autocorrelated walk, and its draws after warmup kept in memory."""
    trace = place.create(
        chains=CHAINS,
        tune=TUNE,
        draws=DRAWS,
        posterior={"mu": zt.Var(), "theta": zt.Var(dims="school"), "up": zt.Var(dtype=bool)},
        sample_stats={
            "lp": zt.Var(),
            "diverging": zt.Var(dtype=bool),
            "energy": zt.Var(),
            "tree_depth": zt.Var(dtype="int16"),
        },
        log_likelihood={"y": zt.Var(dims="school")},
        coords={"school": ["a", "b", "c"]},
        dims={"y": ["school"]},
        observed_data={"y": np.array([1.0, 2.0, 3.0])},
        attrs={"inference_library": "walk"},
        **more,
    )
    kept: dict[str, list[list[Any]]] = {name: [[] for _ in range(CHAINS)] for name in NAMES}
    for chain in range(CHAINS):
        rng = np.random.default_rng([5, chain])
        x = rng.normal(size=4)
        with trace.writer(chain) as writer:
            for i in range(TUNE + DRAWS):
                x = 0.5 * x + rng.normal(size=4)
                if i >= TUNE:
                    kept["mu"][chain].append(x[0])
                    kept["theta"][chain].append(x[1:].copy())
                writer.record(
                    {"mu": x[0], "theta": x[1:], "up": x[0] > 0},
                    {"lp": -x @ x, "diverging": i % 97 == 0, "energy": x @ x, "tree_depth": i % 7},
                    log_likelihood={"y": -0.02 * (x[1:] - 1) ** 2},
                )
    return trace, {name: np.array(values) for name, values in kept.items()}


def summary(container: Any) -> Any:
    return az.summary(container, var_names=NAMES)


def test_the_same_summary_from_our_export_plain_xarray_and_memory(directory: Place) -> None:
    trace, kept = sampled(directory)
    running = summary(trace.to_inferencedata())
    trace.finish()
    dims, coords = {"theta": ["school"]}, {"school": ["a", "b", "c"]}
    plain = xr.open_datatree(directory.path, engine="zarr")
    if ARVIZ_1:
        in_memory = az.from_dict({"posterior": kept}, dims=dims, coords=coords)
        by_hand: Any = plain
    else:
        in_memory = az.from_dict(posterior=kept, dims=dims, coords=coords)
        by_hand = az.InferenceData.from_datatree(plain)
    wanted = summary(in_memory)
    assert summary(trace.to_inferencedata()).equals(wanted)
    assert summary(by_hand).equals(wanted)
    assert running.equals(wanted)
    if ARVIZ_1:
        assert summary(az.from_zarr(directory.path)).equals(wanted)


@pytest.mark.parametrize("together", [1, 2])
def test_a_dead_chain_is_left_out(place: Place, encoded: Encoded, together: int) -> None:
    trace = encoded.create(place, chains=4 * together, tune=4, draws=7, chains_per_chunk=together)
    encoded.fill(trace, 11, 2, 11, 9)
    kept = [chain for chain in range(4 * together) if chain // together != 1]
    with pytest.raises(IncompleteTraceError, match=r"leave it out with finish\(chains=\[0, .*"):
        trace.finish()
    with pytest.warns(
        RuntimeWarning, match="see the first 5 draws of each, and zarrtrace sees all"
    ):
        trace.finish(chains=kept)
    plain = open_plainly(place.store)
    assert plain is not None
    for tree in (plain, trace):
        encoded.check(tree["posterior"], 4, 9, kept)
        encoded.check(tree["warmup_posterior"], 0, 4, kept)
        assert tree["posterior"].attrs["chains_left_out"] == list(range(together, 2 * together))
    assert re.search(r"recorded .*, chains? [1-3 and]+ left out\n", repr(trace))
    assert trace.check() == []
    # The draws of the dead chain are there, and another number of warmup draws moves them along.
    trace.set_burn_in(1)
    dead = {"chains": range(together, 2 * together)}
    encoded.check(trace.dataset("posterior", **dead), 1, 2, dead["chains"])
    encoded.check(trace["posterior"], 1, 9, kept)
    # It may continue: it is at its place again.
    encoded.fill(trace.extend(draws=2))
    assert trace.recorded.tolist() == [13] * 4 * together
    encoded.check(trace.posterior, 1, 13)
    trace.finish()
    plain = open_plainly(place.store)
    assert plain is not None
    encoded.check(plain["posterior"], 1, 13)
    assert not {"chains_left_out", "alignment", "draws_recorded"} & {*plain["posterior"].attrs}
    assert trace.check() == []


@pytest.mark.once("newest")
@pytest.mark.filterwarnings("ignore:.*unequal length:RuntimeWarning")
@pytest.mark.parametrize("kind", ["objects", "directory"])
def test_leaving_a_chain_out_can_be_killed_anywhere(
    kind: str,
    encoded: Encoded,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    place = request.getfixturevalue(kind)
    trace = place.create(chains=3, tune=2, draws=4, posterior={"mu": zt.Var(draws_per_chunk=2)})
    for chain, draws in ((0, 6), (1, 3), (2, 5)):
        with trace.writer(chain) as writer:
            for draw in range(draws):
                writer.record({"mu": 1e6 * chain + draw})
    trace.finish()
    put_back = made_again(place)
    for step in range(0, 1000, 6):
        trace = put_back()
        with suppress(Killed), killed_at(step, monkeypatch) as done:
            trace.finish(chains=[0, 2])
        for reader in (place.open(), place.open("a")):
            everything = reader.dataset("posterior", chains=range(3), align="pad")
            assert np.nanmax(everything.mu, axis=1).tolist() == [5, 1_000_002, 2_000_004]
            assert everything.mu.count("draw").values.tolist() == [4, 1, 3]
        reader.finish(chains=[0, 2])
        plain = open_plainly(place.store)
        assert plain is not None
        encoded.check(plain["posterior"], 2, 5, [0, 2])
        if done[0] < step:
            break
    assert step > 10


def test_which_chains_are_left_out_may_be_chosen_again(place: Place, encoded: Encoded) -> None:
    trace = encoded.create(place, chains=3, tune=2, draws=9)
    encoded.fill(trace, 11, 3, 9)
    with pytest.warns(RuntimeWarning, match=r"unequal length \(9, 1, 7\)"):
        trace.finish()
    trace.finish(chains=0)
    encoded.check(trace.posterior, 2, 11, [0])
    with pytest.warns(RuntimeWarning, match=r"unequal length \(9, 7\)"):
        trace.finish(chains=[2, 0])
    plain = open_plainly(place.store)
    assert plain is not None
    encoded.check(plain["posterior"], 2, 9, [0, 2])
    encoded.check(trace.dataset("posterior", chains=[1]), 2, 3, [1])
    with pytest.raises(ChainError, match="chains 0 to 2, not 3"):
        trace.finish(chains=[3])


def test_plain_xarray_reads_what_we_export(directory: Place) -> None:
    trace, kept = sampled(directory)
    trace.finish()
    # No warning either: warnings are errors here.
    plain = xr.open_datatree(directory.path, engine="zarr")
    ours = trace.to_datatree(save_warmup=True)
    assert list(plain.children) == list(ours.children)
    for name in ours.children:
        assert list(plain[name].data_vars) == list(ours[name].data_vars)
        xr.testing.assert_identical(
            plain[name].to_dataset().drop_attrs(), ours[name].to_dataset().drop_attrs()
        )
        for key, variable in ours[name].variables.items():
            # Labels of text are objects here, and NumPy's own text there.
            there = plain[name][key]
            is_label = key in ours[name].coords
            assert (as_labels(there.values) if is_label else there).dtype == variable.dtype
    assert plain["posterior"].up.dtype == np.int8
    assert plain["sample_stats"].diverging.dtype == bool
    assert np.array_equal(plain["posterior"].theta.values, kept["theta"])
    assert plain["posterior"].attrs["tuning_steps"] == TUNE
    assert plain["posterior"].attrs["inference_library"] == "walk"
    assert plain["posterior"].attrs["sampling_time"] > 0


def test_arviz_finds_what_it_looks_for(directory: Place) -> None:
    trace, kept = sampled(directory)
    trace.finish()
    data = trace.to_inferencedata()
    posterior = trace.posterior[NAMES]
    assert float(az.rhat(posterior).mu) < 1.1
    assert float(az.ess(posterior).mu) > 50
    loo = az.loo(data)
    # With a likelihood as flat as this one, leaving a school out changes next to nothing.
    log_likelihood = -0.02 * (kept["theta"] - 1) ** 2
    elpd = float(loo.elpd if ARVIZ_1 else loo.elpd_loo)
    assert elpd == pytest.approx(log_likelihood.mean(axis=(0, 1)).sum(), abs=0.03)
    assert (loo.n_samples, loo.n_data_points) == (CHAINS * DRAWS, 3)
    energy = trace.sample_stats.energy.values
    expected = np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)
    bfmi = az.bfmi(data)["energy"].values if ARVIZ_1 else az.bfmi(data)
    assert np.allclose(bfmi, expected, rtol=0.01)
    if ARVIZ_1:
        assert az.diagnose(data)
        assert isinstance(data, xr.DataTree)
    else:
        assert isinstance(data, az.InferenceData)


def test_through_netcdf_and_back(directory: Place, tmp_path: Any) -> None:
    trace, kept = sampled(directory)
    trace.finish()
    for number, tree in enumerate(
        (trace.to_datatree(save_warmup=True), xr.open_datatree(directory.path, engine="zarr"))
    ):
        file = tmp_path / f"{number}.nc"
        tree.to_netcdf(file, engine="h5netcdf")
        with xr.open_datatree(file, engine="h5netcdf") as again:
            assert np.array_equal(again["posterior"].mu.values, kept["mu"])


def test_an_object_store_is_finished_too(objects: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(objects, chains=2, tune=4, draws=7))
    trace.finish()
    plain = xr.open_datatree(objects.open()._location.store, engine="zarr")
    encoded.check_split(plain, 4, 11)


def test_finishing_twice_changes_nothing(directory: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(directory, chains=2, tune=4, draws=7))
    trace.finish()
    before = {file: file.read_bytes() for file in directory.path.rglob("*") if file.is_file()}
    trace.finish()
    zt.open(directory.path, "a").finish()
    after = {file: file.read_bytes() for file in directory.path.rglob("*") if file.is_file()}
    assert after == before


def test_an_interrupted_run_is_trimmed_to_its_shortest_chain(
    directory: Place, encoded: Encoded
) -> None:
    trace = encoded.create(directory, chains=3, tune=4, draws=20)
    encoded.fill(trace, 15, 9, 24)
    with pytest.warns(RuntimeWarning, match=r"unequal length \(11, 5, 20\)"):
        trace.finish()
    plain = xr.open_datatree(directory.path, engine="zarr")
    encoded.check_split(plain, 4, 9)
    assert plain["posterior"].attrs["draws_recorded"] == [11, 5, 20]
    assert plain["posterior"].attrs["alignment"] == "cut to the shortest chain"
    again = directory.open()
    encoded.check(again.dataset("posterior", chains=2), 4, 24, chains=[2])
    assert again.dataset("posterior", align="pad").sizes["draw"] == 20


def test_a_chain_without_draws_is_named_not_cut_to_nothing(
    fast_place: Place, encoded: Encoded
) -> None:
    trace = encoded.create(fast_place, chains=3, tune=4, draws=20)
    encoded.fill(trace, 15, 4, 24)
    with pytest.raises(
        zt.errors.IncompleteTraceError, match=r"no draws after 4 of warmup in chain 1 \(4 rec"
    ) as caught:
        trace.finish()
    assert caught.value.chain == 1
    assert not trace.finished
    encoded.fill(trace)
    trace.finish()
    encoded.check_split(trace, 4, 24)


def test_a_finished_trace_refuses_writers(fast_place: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(fast_place, chains=1, tune=0, draws=7))
    trace.finish()
    with pytest.raises(zt.errors.FinishedError, match=r"extend\(draws=\.\.\.\)"):
        trace.writer(0)
    with pytest.raises(zt.errors.NotWritableError, match="mode='a'"):
        fast_place.open().split_warmup(3) if fast_place.kind == "directory" else zt.open(
            fast_place.store
        ).split_warmup(3)


def test_a_group_added_afterwards_is_seen_by_all(directory: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(directory, chains=2, tune=0, draws=7))
    trace.finish()
    values = np.arange(14.0).reshape(2, 7)
    trace.add_group("predictions", xr.Dataset({"z": (("chain", "draw"), values)}))
    plain = xr.open_datatree(directory.path, engine="zarr")
    assert np.array_equal(plain["predictions"].z.values, values)
    assert list(plain.children)[:2] == ["posterior", "predictions"]


def test_a_zip_of_a_finished_trace(directory: Place, encoded: Encoded, tmp_path: Any) -> None:
    trace = encoded.fill(encoded.create(directory, chains=2, tune=4, draws=7))
    trace.finish()
    archive = shutil.make_archive(str(tmp_path / "run"), "zip", directory.path)
    zipped = zt.open(archive)
    assert zipped.finished
    encoded.check_split(zipped, 4, 11)
    assert np.array_equal(zipped.get("mu"), trace.get("mu"))
    with pytest.raises(zt.errors.NotWritableError, match="can only be read"):
        zt.open(archive, "a")


def test_a_reader_that_knows_zarr_alone(directory: Place, encoded: Encoded) -> None:
    encoded.fill(encoded.create(directory, chains=2, tune=4, draws=7)).finish()
    root = zarr.open_group(str(directory.path), mode="r")
    assert root["posterior/mu"].shape == (2, 7)
    assert np.asarray(root["posterior/mu"])[1].tolist() == [1e6 + i for i in range(4, 11)]
    assert "_sampling_state" not in root
    every = zarr.open_group(str(directory.path), mode="r", use_consolidated=False)
    assert np.asarray(every["_sampling_state/draw_idx"]).tolist() == [11, 11]


# What was given, what was split ---------------------------------------------------------------


def test_a_sampling_time_that_was_given_is_kept(fast_place: Place) -> None:
    trace = fast_place.create(
        chains=1, draws=2, posterior={"mu": 0.0}, attrs={"sampling_time": 12.5}
    )
    with trace.writer(0) as writer:
        writer.record_block({"mu": [1.0, 2.0]})
    assert trace.posterior.attrs["sampling_time"] == 12.5
    trace.finish()
    assert fast_place.open().posterior.attrs["sampling_time"] == 12.5
    plain = zarr.open_group(fast_place.store, mode="r")
    assert plain["posterior"].attrs["sampling_time"] == 12.5


def test_a_trace_says_which_groups_are_split(fast_place: Place) -> None:
    trace = fast_place.create(
        chains=1, tune=2, draws=2, posterior={"mu": 0.0}, sample_stats={"lp": 0.0}
    )
    with trace.writer(0) as writer:
        writer.record_block({"mu": np.arange(4.0)}, {"lp": np.arange(4.0)})
    assert trace.split_groups == ()
    # Views have the warmup apart from the beginning; a plain reader finds it after the split.
    assert "warmup_posterior" in trace.groups
    trace.split_warmup(groups="posterior")
    assert trace.split_groups == fast_place.open().split_groups == ("posterior",)
    trace.finish()
    assert trace.split_groups == ("posterior", "sample_stats")
    plain = zarr.open_group(fast_place.store, mode="r")
    assert {f"warmup_{name}" for name in trace.split_groups} <= set(plain.group_keys())


def test_without_warmup_there_is_nothing_to_split(memory: Place) -> None:
    trace = memory.create(chains=1, draws=2, posterior={"mu": 0.0})
    with trace.writer(0) as writer:
        writer.record_block({"mu": [1.0, 2.0]})
    trace.finish()
    assert trace.split_groups == ()


# Before the end -----------------------------------------------------------------------------


READERS: dict[str, Callable[[Any], Any]] = {
    "open_datatree": lambda store: xr.open_datatree(store, engine="zarr"),
    "open_datatree, not consolidated": lambda store: xr.open_datatree(
        store, engine="zarr", consolidated=False
    ),
    "open_dataset": lambda store: xr.open_dataset(
        store, engine="zarr", group="posterior", consolidated=False
    ),
    "open_zarr": lambda store: xr.open_zarr(
        store, group="warmup_posterior", consolidated=False, chunks=None
    ),
    "zarr": lambda store: zarr.open_group(store, mode="r")["posterior/mu"],
    "zarr, all arrays": lambda store: dict(zarr.open_group(store, mode="r")["posterior"].arrays()),
}


def started(trace: zt.Trace, encoded: Encoded) -> None:
    encoded.fill(trace, 11, 6)


def warmup_moved(trace: zt.Trace, encoded: Encoded) -> None:
    encoded.fill(trace)
    trace.split_warmup()


def extended(trace: zt.Trace, encoded: Encoded) -> None:
    encoded.fill(trace)
    trace.finish()
    trace.extend(5)


@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated metadata")
@pytest.mark.parametrize("life", [started, warmup_moved, extended])
def test_other_readers_refuse_what_is_not_finished(
    fast_place: Place, encoded: Encoded, life: Callable[..., None]
) -> None:
    trace = encoded.create(fast_place, chains=2, tune=4, draws=7, observed_data={"y": [1.0]})
    life(trace, encoded)
    # Before the end of the warmup it has no arrays.
    for name in READERS.keys() - ({"open_zarr"} if life is started else set()):
        with pytest.raises(MetadataValidationError, match="zarrtrace_unfinished"):
            READERS[name](fast_place.store)
    assert trace.check() == []
    # What is given whole is right from the beginning.
    data = xr.open_dataset(
        fast_place.store, engine="zarr", group="observed_data", consolidated=False
    )
    assert data.y.values.tolist() == [1.0]
    encoded.fill(trace)
    trace.finish()
    for name in ("zarr", "open_datatree, not consolidated", "open_zarr"):
        READERS[name](fast_place.store)
    stop = trace.tune + trace.draws
    encoded.check_split(xr.open_datatree(fast_place.store, engine="zarr"), 4, stop)


@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated:RuntimeWarning")
def test_arviz_refuses_what_is_not_finished(directory: Place, encoded: Encoded) -> None:
    started(encoded.create(directory, chains=2, tune=4, draws=7), encoded)
    with pytest.raises(
        (MetadataValidationError, ImportError), match=r"zarrtrace_unfinished|zarr>=3"
    ):
        az.from_zarr(directory.path)


def test_a_group_consolidated_by_another_tool_is_refused_after_an_extension(
    directory: Place, encoded: Encoded
) -> None:
    trace = encoded.fill(encoded.create(directory, chains=2, tune=4, draws=7))
    trace.finish()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(directory.path), path="posterior")
    assert xr.open_zarr(directory.path / "posterior", consolidated=True).sizes["draw"] == 7
    trace.extend(2)
    with pytest.raises(ValueError, match="onsolidated metadata"):
        xr.open_zarr(directory.path / "posterior", consolidated=True)
    with pytest.raises(MetadataValidationError, match="zarrtrace_unfinished"):
        xr.open_zarr(directory.path / "posterior", consolidated=False)


@pytest.mark.once("newest")
@pytest.mark.parametrize("step", range(0, 60, 3))
def test_an_extension_killed_anywhere_is_refused_or_right(
    memory: Place, encoded: Encoded, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = encoded.fill(encoded.create(memory, chains=2, tune=4, draws=7))
    trace.finish()
    with suppress(Killed), killed_at(step, monkeypatch):
        trace.extend(5)
    reader = memory.open()
    for consolidated in (None, False):
        plain = open_plainly(memory.store, consolidated=consolidated)
        # It may still be as it was, or finished but for the last step.
        assert plain is not None or not reader.finished
        if plain is not None:
            encoded.check_split(plain, 4, 11)
    encoded.check_split(reader, 4, 11)
    again = memory.open("a")
    if again.draws == 7:
        assert again.finished
        assert open_plainly(memory.store) is not None
        again.extend(5)
    encoded.fill(again)
    again.finish()
    encoded.check_split(xr.open_datatree(memory.store, engine="zarr"), 4, 16)
    assert again.check() == []


def test_a_document_that_still_refuses_readers_of_a_finished_trace_is_damage(
    directory: Place, encoded: Encoded
) -> None:
    trace = encoded.fill(encoded.create(directory, chains=2, tune=4, draws=7))
    file = directory.path / "posterior" / "mu" / "zarr.json"
    before = json.loads(file.read_text())
    trace.finish()
    document = json.loads(file.read_text())
    file.write_text(
        json.dumps({**document, "zarrtrace_unfinished": before["zarrtrace_unfinished"]})
    )
    assert [str(damage) for damage in trace.check()] == [
        "posterior/mu/zarr.json: zarrtrace_unfinished is {'must_understand': True}, not None"
    ]
    trace.repair()
    assert trace.check() == []
    encoded.check_split(xr.open_datatree(directory.path, engine="zarr", consolidated=False), 4, 11)
