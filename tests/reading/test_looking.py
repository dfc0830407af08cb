"""A trace as a person meets it: attributes, items, and what it prints of itself."""

from __future__ import annotations

import copy
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

import zarrtrace as zt
from zarrtrace.reading import others

if TYPE_CHECKING:
    from conftest import Encoded, Place


def test_groups_are_attributes_and_items(place: Place) -> None:
    trace = place.create(
        chains=1, tune=2, draws=3, posterior={"mu": 0.0}, observed_data={"y": [1.0, 2.0]}
    )
    assert isinstance(trace.posterior, xr.Dataset)
    assert trace["observed_data"].y.values.tolist() == [1.0, 2.0]
    assert list(trace["warmup_posterior"].data_vars) == ["mu"]
    assert {"posterior", "warmup_posterior", "observed_data"} <= set(dir(trace))
    assert {"split_warmup", "finish", "writer", "recorded"} <= set(dir(trace))
    assert "posterior" in trace
    assert "warmup_posterior" in trace
    assert "prior" not in trace
    assert 3 not in trace


def test_unknown_groups_name_the_known_ones(memory: Place) -> None:
    trace = memory.create(chains=1, draws=3, posterior={"mu": 0.0}, observed_data={"y": 1.0})
    with pytest.raises(AttributeError, match=r"'posteriro'.*its groups are posterior, observed"):
        _ = trace.posteriro
    with pytest.raises(KeyError, match=r"no group 'prior'; it has posterior, observed_data"):
        _ = trace["prior"]
    with pytest.raises(KeyError, match=r"no group 'warmup_posterior'"):
        _ = trace["warmup_posterior"]
    assert not hasattr(trace, "_ipython_canary_method_should_not_exist_")
    assert not hasattr(trace, "__array__")


def test_a_trace_can_be_copied(directory: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(directory, chains=1, draws=3))
    for copied in (copy.copy(trace), copy.deepcopy(trace)):
        assert copied.recorded.tolist() == [3]


# Reprs ----------------------------------------------------------------------------------------


def test_a_new_trace_shows_its_plan(memory: Place) -> None:
    trace = memory.create(
        chains=4,
        tune=10,
        draws=20,
        posterior={"mu": 0.0, "theta": zt.Var(dims="school")},
        coords={"school": ["a", "b"]},
        constant_data={"sigma": ("school", [1.0, 2.0])},
    )
    assert repr(trace).splitlines() == [
        "<zarrtrace.Trace memory>",
        "new: 4 chains × (10 warmup + 20 draws), recorded 0 of 30 each",
        "in memory: all draws are lost with this process",
        "next: trace.writer(chain) records a chain, and zarrtrace.run(function, trace) runs all",
        "    posterior         mu, theta (school: 2)",
        "    constant_data     sigma",
        "    warmup_posterior  10 draws, not split yet",
    ]


def test_the_repr_follows_the_life_of_a_trace(place: Place) -> None:
    trace = place.create(chains=2, tune=1, draws=2, posterior={"mu": 0.0})

    def record(chain: int, draws: int) -> None:
        with trace.writer(chain) as writer:
            writer.resume()
            for _ in range(draws):
                writer.record({"mu": 1.0})

    def line() -> str:
        return repr(trace).splitlines()[1]

    record(0, 3)
    since = r"stopped( since [-0-9]{10} [:0-9]{5})?: "
    assert re.fullmatch(since + r"2 chains × \(1 warmup \+ 2 draws\), recorded 3, 0 of 3", line())
    assert ("since" in line()) == (place.kind == "directory")
    assert "next: run the sampler again to continue, or trace.finish(chains=[0])" in repr(trace)
    record(1, 3)
    assert line() == "complete: 2 chains × (1 warmup + 2 draws), recorded 3 of 3 each"
    trace.split_warmup()
    assert repr(trace).splitlines()[-1].split("  ")[-1] == "1 draw, split"
    trace.finish()
    assert line() == "finished: 2 chains × (1 warmup + 2 draws), recorded 3 of 3 each"
    assert repr(place.open()) == repr(trace)


def test_many_chains_and_variables_stay_short(memory: Place, encoded: Encoded) -> None:
    variables = {f"variable_{number}": 0.0 for number in range(60)}
    trace = memory.create(chains=100, draws=5, posterior=variables)
    for chain, draws in ((0, 5), (99, 2)):
        with trace.writer(chain) as writer:
            for _ in range(draws):
                writer.record(variables)
    lines = repr(trace).splitlines()
    assert lines[1].startswith("stopped")
    assert lines[1].endswith(": 100 chains × 5 draws, recorded 0 to 5 of 5")
    assert max(map(len, lines)) <= 110
    assert lines[4].endswith("...")
    assert "<progress" not in trace._repr_html_()


def test_a_block_writer_is_shown_by_chain(memory: Place, encoded: Encoded) -> None:
    trace = encoded.create(memory, chains=4, draws=5, chains_per_chunk=2)
    encoded.fill(trace, 5, 3)
    assert repr(trace).splitlines()[1].endswith(": 4 chains × 5 draws, recorded 5, 5, 3, 3 of 5")
    with trace.writer(range(2, 4)) as writer:
        assert repr(writer) == "<zarrtrace.ChainWriter chains 2 to 3 of memory: 3 of 5 draws>"
    assert repr(writer) == "<zarrtrace.ChainWriter chains 2 to 3 of memory: closed>"


def test_html_shows_progress_and_the_tree(directory: Place, encoded: Encoded) -> None:
    trace = encoded.fill(encoded.create(directory, chains=2, tune=2, draws=4), 6, 3)
    running = trace._repr_html_()
    assert ": 2 chains × (2 warmup + 4 draws), recorded 6, 3 of 6" in running
    assert "<progress max='6' value='3'></progress> 3 of 6" in running
    assert "warmup_sample_stats" in running
    encoded.fill(trace)
    trace.finish()
    finished = trace._repr_html_()
    assert "finished" in finished
    assert "<progress" not in finished


def test_html_escapes_the_path(encoded: Encoded, directory: Place) -> None:
    path = directory.path.with_name("<b>&run.zarr")
    html = zt.create(path, chains=1, draws=1, posterior={"mu": 0.0})._repr_html_()
    assert "&lt;b&gt;&amp;run.zarr" in html
    assert "<b>&run" not in html


@pytest.mark.once("newest")
@pytest.mark.parametrize("draws", [6, None], ids=["a declared end", "no end"])
@pytest.mark.parametrize("chains", [None, [0]], ids=["all chains", "one left out"])
def test_a_look_knows_the_documents_that_finish_wrote(
    tmp_path: Path, draws: int | None, chains: list[int] | None
) -> None:
    trace = zt.create(
        tmp_path / "run.zarr", chains=2, tune=4, draws=draws, posterior={"x": zt.Var()}
    )
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"x": np.arange(10.0)})
    trace.finish(chains=chains)
    layout = trace._layout
    for group in ("posterior", "warmup_posterior"):
        expected = others._finished_documents(layout, group)
        assert expected.keys() == {"x", "chain", "draw"}
        for name, sums in expected.items():
            document = tmp_path / "run.zarr" / group / name / "zarr.json"
            assert hashlib.md5(document.read_bytes()).hexdigest() in sums, f"{group}/{name}"
        # So that one list is asked for, and not each array.
        assert others._most_keys(layout, group) < 20
