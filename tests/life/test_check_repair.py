"""Damage is found and named; repair keeps all that can be kept and says what was lost."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import Place
from killed_processes import killed_at_change
from scripts import Script

import zarrtrace as zt
from zarrtrace.cli import main

DRAWS, TUNE = 30, 10


def fill(trace: zt.Trace, chains: int = 2, draws: int = TUNE + DRAWS) -> zt.Trace:
    for chain in range(chains):
        with trace.writer(chain) as writer:
            start, _ = writer.resume()
            for i in range(start, draws):
                writer.record(
                    {"mu": 100 * chain + i + 0.5, "theta": [i, -i, chain], "steps": i},
                    {"lp": -i - 0.25},
                )
                if i == 20:
                    writer.checkpoint({"at": 21})
    return trace


def create(place: Place, **more: Any) -> zt.Trace:
    return place.create(
        chains=2,
        tune=TUNE,
        draws=DRAWS,
        posterior={
            "mu": zt.Var(draws_per_chunk=10),
            "theta": zt.Var(dims="what", draws_per_chunk=8),
            "steps": zt.Var(dtype="int32", draws_per_chunk=10),
        },
        sample_stats={"lp": zt.Var()},
        coords={"what": ["a", "b", "c"]},
        observed_data={"y": np.arange(5.0)},
        **more,
    )


def flip(file: Path, bit: int) -> bytes:
    """Flip one bit of a file; returns its content from before."""
    before = file.read_bytes()
    data = bytearray(before)
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    return before


COUNT_OPENED = """
import sys
import zarrtrace as zt

opened = []


def count(event, arguments):
    if event == "open" and str(arguments[0]).endswith("journal/c.0.0"):
        opened.append(arguments)


sys.addaudithook(count)
assert zt.open(sys.argv[1]).check() == []
print(len(opened))
"""


@pytest.mark.once("newest")
def test_a_check_of_a_copy_proves_its_draws_as_often_however_many_chunks_it_has(
    directory: Place, script: Script, tmp_path: Path
) -> None:
    """A copy proves its draws each time that its journal is opened, chunk by chunk."""
    trace = directory.create(chains=1, draws=300, posterior={"mu": zt.Var(draws_per_chunk=1)})
    writer = trace.writer(0)
    opened = []
    for stop in (20, 300):
        for draw in range(int(trace.recorded[0]), stop):
            writer.record({"mu": draw})
        writer.checkpoint({"at": stop})
        copy = tmp_path / f"{stop}.zarr"
        shutil.copytree(directory.path, copy)
        opened.append(int(script.run(COUNT_OPENED, copy)))
    writer._release()
    assert 0 < opened[0] == opened[1]


@pytest.mark.parametrize("finish", [False, True])
def test_nothing_is_wrong_with_a_trace_that_is_well(place: Place, finish: bool) -> None:
    trace = fill(create(place, checksum=True))
    if finish:
        trace.finish()
    assert [str(damage) for damage in place.open().check()] == []
    assert trace.repair() == []


def test_a_running_trace_can_be_checked(directory: Place) -> None:
    trace = create(directory)
    with trace.writer(0) as writer:
        for i in range(17):
            writer.record({"mu": i, "theta": [i, i, i], "steps": i}, {"lp": i})
        assert directory.open().check() == []


@pytest.mark.once("newest")
@pytest.mark.parametrize("finish", [False, True])
def test_every_flipped_bit_of_a_checksummed_chunk_is_found(
    directory: Place, finish: bool, trials: int | None
) -> None:
    trace = fill(create(directory, checksum=True))
    if finish:
        trace.finish()
    chooser = random.Random(1)
    chunks = sorted(
        file
        for file in directory.path.rglob("*")
        if file.is_file() and file.name != "zarr.json" and "journal" not in file.parts
    )
    assert len(chunks) > 30
    reader = directory.open()
    for number in range(trials or 80):
        # Every file in turn, so that none is spared.
        file = chunks[number % len(chunks)]
        bit = chooser.randrange(8 * file.stat().st_size)
        before = flip(file, bit)
        found = reader.check()
        key = str(file.relative_to(directory.path).parent)
        assert any(key in str(damage) for damage in found), f"bit {bit} of {file}: {found}"
        file.write_bytes(before)
    assert reader.check() == []


@pytest.mark.once("newest")
def test_a_flipped_bit_of_the_metadata_is_an_error_or_harmless(
    directory: Place, trials: int | None
) -> None:
    """No bit makes a reader believe something false: values are right, or a TraceError says why."""
    trace = fill(create(directory, checksum=True))
    trace.finish()
    chooser = random.Random(2)
    documents = sorted(directory.path.rglob("zarr.json"))
    right = {name: trace.get(name) for name in ("mu", "theta", "steps", "lp")}
    found = 0
    for number in range(trials or 80):
        file = documents[number % len(documents)]
        before = flip(file, chooser.randrange(8 * file.stat().st_size))
        try:
            reader = directory.open()
            for name, values in right.items():
                assert np.array_equal(reader.get(name), values), f"{file}: {name}"
            reader.posterior.load()
            found += bool(reader.check())
        except zt.TraceError:
            found += 1
        except UnicodeDecodeError as error:
            raise AssertionError(f"{file}: {error}") from error
        file.write_bytes(before)
    assert found > (trials or 80) / 4


def test_a_damaged_chunk_is_named_by_variable_chain_and_draws(
    directory: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(create(directory))
    (directory.path / "posterior" / "theta" / "c.1.2.0").write_bytes(b"no chunk")
    (directory.path / "posterior" / "mu" / "c.0.3").unlink()
    assert main(["check", str(directory.path)]) == 1
    printed = capsys.readouterr().out
    assert "posterior/theta, chain 1, draws 16 to 23" in printed
    assert "posterior/mu, chain 0, draws 30 to 39" in printed
    assert "missing" in printed
    assert "2 things are wrong" in printed
    with pytest.raises(zt.errors.DamagedTraceError, match="chain 1, draws 16 to 23") as caught:
        zt.open(directory.path).get("theta")
    assert (caught.value.variable, caught.value.chain, caught.value.draw) == ("theta", 1, 16)


def test_repair_keeps_all_else_and_says_what_was_lost(
    directory: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = fill(create(directory))
    right = {name: trace.get(name) for name in ("mu", "theta", "steps")}
    damaged = directory.path / "posterior" / "theta" / "c.1.2.0"
    damaged.write_bytes(b"no chunk")
    (directory.path / "posterior" / "steps" / "c.0.1").write_bytes(b"nor this")

    assert main(["repair", str(directory.path)]) == 0
    printed = capsys.readouterr().out
    assert "posterior/theta, chain 1, draws 16 to 23" in printed
    assert "read as missing values" in printed
    assert "cannot be read" in printed
    kept = Path(f"{directory.path}.damaged") / "posterior" / "theta" / "c.1.2.0"
    assert kept.read_bytes() == b"no chunk"

    again = zt.open(directory.path)
    theta = again.get("theta")
    lost = np.zeros(theta.shape, bool)
    lost[1, 16 - TUNE : 24 - TUNE] = True
    assert np.array_equal(np.isnan(theta), lost)
    assert np.array_equal(theta[~lost], right["theta"][~lost])
    assert np.array_equal(again.get("mu"), right["mu"])
    assert again.posterior.theta.attrs["lost_draws"] == ["chain 1: draws 16 to 23"]
    with pytest.raises(zt.errors.DamagedTraceError, match="was lost"):
        again.get("steps", chains=0)
    assert np.array_equal(again.get("steps", chains=1), right["steps"][1:])

    capsys.readouterr()
    trace.finish()
    plain = xr.open_datatree(directory.path, engine="zarr")
    assert np.array_equal(np.isnan(plain.posterior.theta.values), lost)
    assert plain.posterior.theta.attrs["lost_draws"] == ["chain 1: draws 16 to 23"]


def test_repair_writes_documents_and_counts_again(directory: Place) -> None:
    trace = fill(create(directory))
    trace.finish()
    right = {name: trace.get(name) for name in ("mu", "theta", "steps", "lp")}
    (directory.path / "posterior" / "mu" / "zarr.json").write_text("{}")
    (directory.path / "sample_stats" / "lp" / "zarr.json").unlink()
    (directory.path / "posterior" / "draw" / "c.0").unlink()
    (directory.path / "posterior" / "zarr.json").write_text("not json")
    (directory.path / "_sampling_state" / "draw_idx" / "c.0").write_bytes(b"123")
    (directory.path / "_sampling_state" / "sampling_time" / "c.1").write_bytes(b"")
    (directory.path / "_sampling_state" / "state" / "c.1").write_bytes(b"xx")
    (directory.path / "posterior" / "mu" / "c.0.abc.partial").write_bytes(b"half a chunk")
    assert len(zt.open(directory.path).check()) >= 7

    done = "\n".join(zt.open(directory.path, "a").repair())
    assert "posterior/mu/zarr.json: written again" in done
    assert "draw_idx/c.0: chain 0 has 40 draws, by its chunks" in done
    assert "the checkpoint of chain 1 is dropped" in done
    assert "c.0.abc.partial: removed" in done
    again = zt.open(directory.path)
    assert again.check() == []
    assert again.recorded.tolist() == [40, 40]
    for name, values in right.items():
        assert np.array_equal(again.get(name), values)
    plain = xr.open_datatree(directory.path, engine="zarr")
    assert np.array_equal(plain.posterior.mu.values, right["mu"])


@pytest.mark.parametrize("draws", [1, 9, 10, 23, 40])
def test_counts_come_back_from_the_chunks_alone(directory: Place, draws: int) -> None:
    trace = create(directory, journal=False)
    fill(trace, draws=draws)
    trace.split_warmup(min(draws, TUNE))
    (directory.path / "_sampling_state" / "draw_idx" / "c.1").write_bytes(b"broken")
    with pytest.raises(zt.errors.DamagedTraceError, match="zarrtrace repair"):
        _ = trace.recorded
    trace.repair()
    assert trace.recorded.tolist() == [draws, draws]


def test_draws_in_full_chunks_are_left_without_the_last_rows(directory: Place) -> None:
    trace = create(directory, journal=False)
    fill(trace, draws=23)
    state = directory.path / "_sampling_state"
    (state / "draw_idx" / "c.0").write_bytes(b"broken")
    assert trace.recorded.tolist() == [23, 23]
    last_rows = state / "flushed" / "c.1"
    data = bytearray(last_rows.read_bytes())
    data[20] ^= 1
    last_rows.write_bytes(data)
    with pytest.raises(zt.errors.DamagedTraceError, match="zarrtrace repair"):
        _ = trace.recorded
    assert {damage.path for damage in trace.check()} >= {"_sampling_state/flushed/c.1"}
    done = "\n".join(trace.repair())
    assert "draw_idx/c.0: chain 0 has 23 draws, by its last rows" in done
    assert "flushed/c.1: removed, chain 1 has" in done
    assert trace.recorded.tolist()[0] == 23
    assert trace.check() == []
    assert 0 <= trace.recorded[1] < 23


def test_labels_of_another_name_stay_labels(directory: Place) -> None:
    places = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["region", "year"])
    posterior = {"x": zt.Var(dims="place")}
    trace = directory.create(chains=1, draws=1, posterior=posterior, coords={"place": places})
    with trace.writer(0) as writer:
        writer.record({"x": np.zeros(4)})
    trace.finish()
    group = directory.path / "posterior" / "zarr.json"
    before = json.loads(group.read_text())["attributes"]["coordinates"]
    group.unlink()
    trace.repair()
    assert json.loads(group.read_text())["attributes"]["coordinates"] == before == "region year"
    with xr.open_datatree(directory.path, engine="zarr") as plain:
        assert set(plain["posterior"].coords) == {"chain", "draw", "place", "region", "year"}


def test_what_only_a_copy_can_restore_is_said(directory: Place) -> None:
    trace = fill(create(directory))
    (directory.path / "observed_data" / "y" / "c.0").write_bytes(b"gone")
    assert any("observed_data/y" in str(damage) for damage in trace.check())
    assert any(
        line.startswith("not repaired: observed_data/y") and "copy" in line
        for line in trace.repair()
    )


def test_repair_waits_for_no_writer(directory: Place) -> None:
    trace = create(directory)
    with trace.writer(0), pytest.raises(zt.errors.ChainBusyError):
        trace.repair()


def test_the_command_says_when_all_is_well_and_what_it_cannot_see(
    directory: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(create(directory))
    assert main(["check", str(directory.path)]) == 0
    assert "a flipped bit may hide" in capsys.readouterr().out
    fill(create(directory, checksum=True, overwrite=True))
    assert main(["check", str(directory.path)]) == 0
    assert "may hide" not in capsys.readouterr().out
    assert main(["repair", str(directory.path)]) == 0
    assert "nothing to fix" in capsys.readouterr().out
    assert main(["check", str(directory.path / "nowhere")]) == 1


# Hostile stores -------------------------------------------------------------------------------


def mutate(value: Any, chooser: random.Random) -> Any:
    """A JSON value with one thing somewhere replaced by something that has no place there."""
    odd = [
        None, -1, 2**80, 1e308, "", "../../etc/passwd", "__import__('os').system('x')", [], {},
        {"!": "array"}, True, "object", ["a", 1], "\x00", "posterior/mu", 2**40,
    ]  # fmt: skip
    if isinstance(value, dict) and value and chooser.random() < 0.9:
        key = chooser.choice(sorted(value))
        copy = dict(value)
        if chooser.random() < 0.1:
            del copy[key]
        else:
            copy[key] = mutate(value[key], chooser)
        return copy
    if isinstance(value, list) and value and chooser.random() < 0.8:
        copy_of_list = list(value)
        place = chooser.randrange(len(value))
        copy_of_list[place] = mutate(value[place], chooser)
        return copy_of_list
    return chooser.choice(odd)


@pytest.mark.once("newest")
def test_a_crafted_layout_runs_nothing_and_is_a_trace_error(directory: Place) -> None:
    import google_crc32c

    fill(create(directory))
    file = directory.path / "_sampling_state" / "zarr.json"
    document = json.loads(file.read_text())
    layout = json.loads(document["attributes"]["zarrtrace"])
    refused = 0
    for seed in range(400):
        crafted = json.dumps(mutate(layout, random.Random(seed)))
        document["attributes"]["zarrtrace"] = crafted
        document["attributes"]["zarrtrace_crc32c"] = google_crc32c.value(crafted.encode())
        file.write_text(json.dumps(document))
        try:
            trace = zt.open(directory.path)
            repr(trace)
            _ = trace.recorded
            trace.to_datatree(save_warmup=True)
            trace.get("mu", draws=slice(0, 3))
        except (zt.TraceError, KeyError):
            refused += 1
    assert refused > 200


def test_a_pickle_is_never_read(directory: Place, tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return Path(tmp_path / "it ran").touch, ()

    fill(create(directory))
    for file in directory.path.rglob("c.*"):
        if "journal" not in file.parts:
            file.write_bytes(pickle.dumps(Bomb()))
    trace = zt.open(directory.path)
    for name in ("mu", "theta", "steps", "lp"):
        with pytest.raises(zt.TraceError):
            trace.get(name)
    trace.check()
    assert not (tmp_path / "it ran").exists()


# Killed ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.once("newest")
@pytest.mark.parametrize("finish", [False, True])
def test_killed_at_any_step_it_can_be_repaired_again(
    directory: Place, tmp_path: Path, finish: bool
) -> None:
    trace = fill(create(directory))
    if finish:
        trace.finish()
    path, damaged = directory.path, tmp_path / "damaged.zarr"
    right = {name: trace.get(name) for name in ("mu", "theta", "steps", "lp")}
    # A split changes the form of the keys.
    lost = path / "posterior" / "mu" / ("1.2" if finish else "c.1.2")
    assert lost.exists()
    lost.write_bytes(b"no chunk")
    (path / "posterior" / "theta" / "zarr.json").write_text("nothing")
    (path / "sample_stats" / "zarr.json").unlink()
    (path / "_sampling_state" / "sampling_time" / "c.0").write_bytes(b"nothing")
    (path / "posterior" / "mu" / "c.0.9.partial").write_bytes(b"half")
    shutil.copytree(path, damaged)
    kills = 0
    for step in itertools.count():
        for left in (path, Path(f"{path}.damaged")):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(damaged, path)
        killed = killed_at_change(path, step, lambda: directory.open("a").repair())
        kills += killed
        done = directory.open("a").repair()
        assert not any(line.startswith("not repaired") for line in done), (step, done)
        repaired = directory.open()
        assert repaired.recorded.tolist() == [TUNE + DRAWS] * 2, (step, done)
        # Only draws of the damaged chunk are missing, and its file is beside the trace.
        first = 20 if finish else 20 - TUNE
        right["mu"][1, first : first + 10] = np.nan
        for name, values in right.items():
            assert np.array_equal(repaired.get(name), values, equal_nan=True), (step, name)
        aside = Path(f"{path}.damaged") / lost.relative_to(path)
        assert aside.read_bytes() == b"no chunk"
        assert [str(damage) for damage in repaired.check()] == []
        if not killed:
            break
    assert kills > 10
