"""Draws of a varying size: recorded as they are, read padded with their lengths, or as lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Place

import zarrtrace as zt
from zarrtrace.diagnostics.convergence import worst_rhat
from zarrtrace.errors import DrawError, InvalidInputError, SchemaError

TUNE, TOTAL, MOST = 2, 9, 5
DEFINITION: dict[str, Any] = {
    "chains": 2,
    "tune": TUNE,
    "draws": TOTAL - TUNE,
    "draws_per_chunk": 3,
    "posterior": {
        "mu": zt.Var(),
        "where": zt.Var(shape=(zt.UpTo(MOST), 2), dims=("particle", "xy")),
        "label": zt.Var(shape=zt.UpTo(3), dtype=str),
    },
    "sample_stats": {"born": zt.Var(shape=[zt.UpTo(4)], dtype="datetime64[s]")},
    "coords": {"xy": ["x", "y"]},
}


def where(chain: int, draw: int) -> np.ndarray[Any, Any]:
    length = (chain + draw) % (MOST + 1)
    return 100.0 * chain + 10 * draw + np.arange(2 * length).reshape(length, 2)


def label(chain: int, draw: int) -> list[str]:
    return [f"{chain}.{draw}"] * ((chain + draw) % 4)


def born(chain: int, draw: int) -> np.ndarray[Any, Any]:
    return np.arange(draw, draw + draw % 5).astype("M8[s]")


def values(chain: int, draw: int) -> dict[str, dict[str, Any]]:
    return {
        "posterior": {"mu": draw, "where": where(chain, draw), "label": label(chain, draw)},
        "sample_stats": {"born": born(chain, draw)},
    }


def record(trace: zt.Trace, start: int, stop: int) -> None:
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.resume()
            for draw in range(start, stop):
                writer.record(**values(chain, draw))


def check(trace: zt.Trace, start: int, stop: int, prefix: str = "") -> None:
    """The draws from `start` to `stop - 1` are there, as lists and padded."""
    expected = [[values(chain, draw) for draw in range(start, stop)] for chain in range(2)]
    for group, name in (("posterior", "where"), ("posterior", "label"), ("sample_stats", "born")):
        found = trace.ragged(name, group=prefix + group)
        wanted = [[draw[group][name] for draw in chain] for chain in expected]
        assert as_lists(found) == as_lists(wanted)
        data = trace[prefix + group]
        assert data[name].attrs["length_variable"] == f"{name}_length"
        lengths = data[f"{name}_length"]
        assert lengths.dtype == np.int64
        assert lengths.values.tolist() == [[len(draw) for draw in chain] for chain in wanted]
        padded = data[name].values
        after = np.arange(padded.shape[2]) >= lengths.values[..., np.newaxis]
        assert np.all(padded[after] == "" if name == "label" else np.isnan(padded[after]))


def as_lists(arrays: Any) -> list[list[Any]]:
    return [[np.asarray(array).tolist() for array in chain] for chain in arrays]


def test_draws_of_any_length_live_through_the_life_of_a_trace(place: Place) -> None:
    trace = place.create(**DEFINITION)
    record(trace, 0, 5)
    check(trace, TUNE, 5)
    check(place.open(), 0, TUNE, "warmup_")
    record(trace, 5, TOTAL)
    trace.split_warmup()
    check(trace, TUNE, TOTAL)
    record(trace.extend(2), TOTAL, TOTAL + 2)
    trace.drop_before(1)
    trace.finish()
    check(place.open(), 1, TUNE, "warmup_")
    check(place.open(), TUNE, TOTAL + 2)
    assert trace.check() == []
    found = trace.ragged("where", draws=slice(1, None, 3), chains=1)
    assert as_lists(found) == as_lists([[where(1, draw) for draw in (3, 6, 9)]])


def test_a_finished_trace_is_the_same_for_plain_readers_and_when_it_is_adopted(
    directory: Place, tmp_path: Path
) -> None:
    record(directory.create(**DEFINITION), 0, TOTAL)
    directory.open("a").finish()
    with xr.open_datatree(directory.path, engine="zarr", chunks=None) as plain:
        assert plain.posterior["where"].dims == ("chain", "draw", "particle", "xy")
        adopted = zt.from_datatree(plain, tmp_path / "adopted.zarr")
    check(adopted, TUNE, TOTAL)
    check(adopted, 0, TUNE, "warmup_")
    again = zt.from_datatree(directory.open().to_inferencedata(save_warmup=True))
    check(again, TUNE, TOTAL)
    extended = adopted.extend(1)
    record(extended, TOTAL, TOTAL + 1)
    check(extended, TUNE, TOTAL + 1)


def test_a_chain_of_empty_draws_is_adopted_as_a_whole(memory: Place) -> None:
    trace = memory.create(chains=1, draws=3, posterior={"x": zt.Var(shape=zt.UpTo(2))})
    with trace.writer(0) as writer:
        writer.record_block({"x": [[1.0], [], []]})
    adopted = zt.from_datatree(trace.to_datatree())
    assert as_lists(adopted.ragged("x")) == [[[1.0], [], []]]


def test_blocks_and_chains_that_are_drawn_together_take_lists(fast_place: Place) -> None:
    definition = {**DEFINITION, "chains_per_chunk": 2}
    trace = fast_place.create(**definition)
    with trace.writer(range(2)) as writer:
        for draw in range(2):
            both = [values(chain, draw) for chain in range(2)]
            groups = {g: {k: [one[g][k] for one in both] for k in both[0][g]} for g in both[0]}
            writer.record(**groups)
        made = {"where": where, "label": label, "born": born}
        lists = {k: [[f(c, d) for d in range(2, TOTAL)] for c in range(2)] for k, f in made.items()}
        mu = np.tile(np.arange(2.0, TOTAL), (2, 1))
        stats = {"born": lists.pop("born")}
        writer.record_block({"mu": mu, **lists}, stats)
    check(trace, TUNE, TOTAL)
    check(trace, 0, TUNE, "warmup_")


def test_a_padded_array_is_taken_with_its_lengths_and_cleared_after_them(memory: Place) -> None:
    shape = (zt.UpTo(3), 2)
    trace = memory.create(chains=1, draws=4, posterior={"x": zt.Var(shape=shape, dtype=int)})
    padded = np.arange(1, 25).reshape(4, 3, 2)
    with trace.writer(0) as writer:
        writer.record({"x": padded[0], "x_length": 2})
        writer.record_block({"x": padded[1:], "x_length": np.array([0, 3, 1])})
    assert as_lists(trace.ragged("x")) == as_lists([[padded[0, :2], [], padded[2], padded[3, :1]]])
    expected = padded.copy()
    expected[0, 2:] = expected[1] = expected[3, 1:] = 0
    assert trace.get("x").tolist() == [expected.tolist()]
    assert padded.min() == 1


@pytest.mark.once("newest")
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"x": np.zeros((4, 2))}, "length 4, but at most 3 is declared; .*UpTo"),
        ({"x": np.zeros((2, 3))}, r"shape \(2, 3\), expected \(up to 3, 2\)"),
        ({"x": np.zeros(2)}, r"expected \(up to 3, 2\)"),
        ({"x": [[1, "a"]]}, "cannot become float64"),
        ({"x_length": 1}, "no value for 'x'; "),
        ({}, "no value for 'x'; "),
        ({"x": np.zeros((3, 2)), "x_length": 4}, "'x_length' has lengths from 4 to 4"),
        ({"x": np.zeros((3, 2)), "x_length": -1}, "from 0 to 3"),
        ({"x": np.zeros((3, 2)), "x_length": 1.0}, "posterior/x_length.*float64"),
        ({"x": np.zeros((2, 2)), "x_length": 2}, r"expected \(3, 2\)"),
    ],
    ids=str,
)
def test_a_draw_that_does_not_fit_is_refused_by_name(
    memory: Place, given: dict[str, Any], says: str
) -> None:
    trace = memory.create(chains=1, draws=4, posterior={"x": zt.Var(shape=(zt.UpTo(3), 2))})
    with trace.writer(0) as writer:
        with pytest.raises(DrawError, match=says) as caught:
            writer.record(given)
        assert caught.value.variable in ("x", "x_length")
        assert writer.recorded == 0
        writer.record({"x": []})
    assert as_lists(trace.ragged("x")) == [[[]]]


@pytest.mark.once("newest")
def test_a_block_says_the_length_of_each_draw(memory: Place) -> None:
    options = {"chains": 2, "chains_per_chunk": 2, "draws": 4}
    trace = memory.create(**options, posterior={"x": zt.Var(shape=zt.UpTo(3))})
    with trace.writer(range(2)) as writer:
        with pytest.raises(DrawError, match=r"the length of each chain; .* 'x_length'"):
            writer.record({"x": np.zeros((2, 3))})
        with pytest.raises(DrawError, match="the length of each draw"):
            writer.record_block({"x": [np.zeros((2, 3)), np.zeros((2, 3))]})
        with pytest.raises(DrawError, match="chains have 1, 2 draws"):
            writer.record_block({"x": [[[1]], [[1], [2]]]})
        with pytest.raises(
            DrawError, match=r"posterior/x, chain 1, draw 1: .* 4, but at most 3 is"
        ):
            writer.record_block({"x": [[[1], [2]], [[1], [1, 2, 3, 4]]]})
        writer.record_block({"x": [[], []]})
    assert trace.recorded.tolist() == [0, 0]


@pytest.mark.once("newest")
@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ({"x": zt.Var(shape=(2, zt.UpTo(3)))}, r"posterior/x: shape \(2, UpTo\(3\)\) .*first"),
        ({"x": zt.Var(shape=(zt.UpTo(3), zt.UpTo(3)))}, "posterior/x: .*first dimension"),
        ({"x": zt.Var(shape=zt.UpTo(0))}, "posterior/x: UpTo takes a whole number from 1, got 0"),
        ({"x": zt.Var(shape=zt.UpTo("3"))}, "got '3'"),  # type: ignore[arg-type]
        ({"x": zt.Var(shape=zt.UpTo(3)), "x_length": zt.Var()}, "'x_length' is the variable with"),
        ({"x": zt.Var(shape=zt.UpTo(3), dims="x_length")}, "'x_length' is also the name of a dim"),
    ],
    ids=str,
)
def test_a_definition_that_varies_where_it_cannot_is_refused(
    memory: Place, definition: dict[str, Any], says: str
) -> None:
    with pytest.raises(SchemaError, match=says):
        memory.create(chains=1, draws=4, posterior=definition)
    assert "zarr.json" not in memory.store._store_dict


@pytest.mark.once("newest")
def test_padding_is_no_number_that_chains_disagree_about(memory: Place) -> None:
    trace = memory.create(chains=2, draws=8, posterior={"x": zt.Var(shape=zt.UpTo(3), dtype=int)})
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"x": [[100 * chain + i] * (i % 3) for i in range(8)]})
    found = worst_rhat(trace._hierarchy)
    assert (found.variable, found.complete) == ("x_length", True)
    assert found.value < 1.2


@pytest.mark.once("newest")
def test_only_variables_that_vary_are_read_as_lists_and_columns_do_not(memory: Place) -> None:
    trace = memory.create(chains=1, draws=4, posterior={"x": zt.Var(shape=3)})
    with pytest.raises(InvalidInputError, match=r"posterior/x .* one size; trace.get\('x'\)"):
        trace.ragged("x")
    with pytest.raises(SchemaError, match=r"column.*first dimension of a variable"):
        trace.table("rows", {"x": zt.Var(shape=zt.UpTo(3))})


def test_the_kept_draws_after_a_checkpoint_are_those_that_were_kept(directory: Place) -> None:
    trace = directory.create(**DEFINITION)
    with trace.writer(0) as writer:
        for draw in range(4):
            writer.record(**values(0, draw))
        writer.checkpoint({"draw": 4})
        writer.record(**values(1, 4))
        writer._release()  # as if killed
    with directory.open("a").writer(0) as writer:
        assert writer.resume() == (4, {"draw": 4})
        for draw in range(4, TOTAL):
            writer.record(**values(0, draw))
    found = directory.open().ragged("where", chains=0)
    assert as_lists(found) == as_lists([[where(0, draw) for draw in range(TUNE, TOTAL)]])
