"""Copies, network disks and power loss: look for a wrong draw in what a machine elsewhere finds.

    python tests/promises/harness_copy.py --trials 2000

One trial: a small trace is recorded, with flushes, checkpoints, chains that go back to one, and
writers that are closed and opened. Every version of every file is remembered. Then a trace is put
together of which each file is of a moment of its own, within a window of moments, and of a journal
each piece of 8, 512 or 4,096 bytes: that is what `cp -r` finds, what a client of a network disk may
see, and, where files may also be missing or empty, what power loss leaves behind. Its draws must be
right, and complete when every moment is the same; a writer must be able to continue. A copy of a
trace without a journal may say instead that it lacks a chunk. At the end it
prints how many copies there were and how many were torn, and how many trials found lost or wrong
draws, a trace that cannot be read, or anything else that is wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from outcomes import Outcomes, TrialFailed

import zarrtrace as zt
from zarrtrace.sampling_state.block import ChainBlock
from zarrtrace.sampling_state.flushed import read_last_rows
from zarrtrace.sampling_state.last_checkpoint import last_checkpoint

TUNE, DRAWS = 9, 31
TOTAL = TUNE + DRAWS
LENGTHS = (1, 2, 3, 5, 8, TUNE, TOTAL)

# What is in each variable, by chain and draw. None of it is a fill value.
VALUES: dict[str, dict[str, Any]] = {
    "posterior": {
        "mu": lambda chain, draw: 1000.0 * chain + draw + 0.5,
        "theta": lambda chain, draw: [draw + 1.0, chain + 1.0, draw * 0.5 + 1.0],
        "large": lambda chain, draw: np.full(700, 1.0 + draw + 100 * chain),
        "steps": lambda chain, draw: draw + 100 * chain + 1,
        "word": lambda chain, draw: f"{chain} draws {draw}" * (draw % 3 + 1),
    },
    "sample_stats": {
        "lp": lambda chain, draw: -float(draw) - 1000 * chain - 1,
        "diverging": lambda chain, draw: (draw + chain) % 3 == 0,
        "note": lambda chain, draw: f"{draw}",
    },
}


def create(path: Path, chooser: random.Random) -> zt.Trace:
    def var(**options: Any) -> zt.Var:
        return zt.Var(draws_per_chunk=chooser.choice(LENGTHS), **options)

    chains, together = chooser.choice([(1, 1), (2, 1), (3, 3), (4, 2)])
    posterior = {
        "mu": var(), "theta": var(shape=3), "large": var(shape=700),
        "steps": var(dtype="int16"), "word": var(dtype=str),
    }  # fmt: skip
    return zt.create(
        path,
        chains=chains,
        chains_per_chunk=together,
        tune=TUNE,
        draws=DRAWS,
        posterior=posterior,
        sample_stats={"lp": var(), "diverging": var(dtype=bool), "note": var(dtype=str)},
        durability=chooser.choice(["process", "disk"]),
        journal=chooser.random() < 0.75,
    )


def values_of(chains: range, draw: int) -> dict[str, dict[str, Any]]:
    return {
        group: {
            name: np.array([value(chain, draw) for chain in chains])
            if len(chains) > 1
            else value(chains[0], draw)
            for name, value in values.items()
        }
        for group, values in VALUES.items()
    }


@dataclass
class Moments:
    """Every version of every file of a trace, and the draws of each chain, moment by moment."""

    root: Path
    files: list[dict[str, tuple[int, bytes]]] = field(default_factory=list)
    counts: list[list[int]] = field(default_factory=list)

    def remember(self, counts: list[int]) -> None:
        found = {}
        for path in self.root.rglob("*"):
            if path.is_file():
                found[str(path.relative_to(self.root))] = path.stat().st_ino, path.read_bytes()
        self.files.append(found)
        self.counts.append(counts)

    def put_together(
        self, target: Path, first: int, last: int, chooser: random.Random, power_is_lost: bool
    ) -> None:
        """A trace whose files, and pieces of whose journals, are each of a moment of their own."""
        window = self.files[first : last + 1]
        for name in {name for files in window for name in files}:
            versions = [files.get(name) for files in window]
            chosen = chooser.choice(versions)
            if chosen is None:
                continue
            identity, data = chosen
            if "journal/c." in name:
                same = [one[1] for one in versions if one is not None and one[0] == identity]
                data = mixed(same, chooser)
            elif power_is_lost and "/c." in name and versions[0] is None:
                data = chooser.choice([data, b""])
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def mixed(versions: list[bytes], chooser: random.Random) -> bytes:
    piece = chooser.choice([8, 512, 4096])
    if len({*versions}) == 1:
        return versions[0]
    # Each piece is taken from the older versions, from the newer ones, or from any.
    few = chooser.sample(versions, min(len(versions), chooser.choice([2, 2, 5])))
    length = len(versions[0])
    return b"".join(chooser.choice(few)[start : start + piece] for start in range(0, length, piece))


def record(trace: zt.Trace, moments: Moments, chooser: random.Random, steps: int) -> None:
    """Do things to the chains, and remember all files after each of them."""
    writers: dict[int, zt.ChainWriter] = {}

    def remember() -> None:
        moments.remember(trace.recorded.tolist())

    remember()
    for _ in range(steps):
        block = chooser.randrange(len(trace.blocks))
        chains = trace._block(block).chains
        if block not in writers:
            writers[block] = trace.writer(chains if len(chains) > 1 else chains[0])
            remember()
            writers[block].resume()
            remember()
        writer = writers[block]
        do = chooser.random()
        if do < 0.03:
            writer.close() if chooser.random() < 0.5 else writer._release()
            del writers[block]
        elif do < 0.08:
            writer.flush()
        elif do < 0.16:
            writer.checkpoint({"draw": writer.recorded, "more": "x" * chooser.choice([1, 9000])})
        elif do < 0.25 and writer.recorded < TOTAL:
            number = min(chooser.randrange(1, 9), TOTAL - writer.recorded)
            draws = range(writer.recorded, writer.recorded + number)
            axis = 1 if len(writer.chains) > 1 else 0
            each = [values_of(writer.chains, draw) for draw in draws]
            writer.record_block(**{
                group: {
                    name: np.stack([np.asarray(one[group][name]) for one in each], axis)
                    for name in values
                }
                for group, values in VALUES.items()
            })  # fmt: skip
        elif writer.recorded < TOTAL:
            writer.record(**values_of(writer.chains, writer.recorded))
        remember()
    for writer in writers.values():
        writer._release()


def lacks_rows(block: ChainBlock) -> bool:
    """Whether its journal, or its last rows, were not there yet, or are lost with the power."""
    file = block.journal_file
    if file is not None:
        return not file.exists()
    # A checkpoint that is too large for the last rows comes after them.
    return block.read("state") is not None and read_last_rows(block) is None


def lacking_journals(path: Path) -> list[int]:
    """The chains with draws or a checkpoint, and without the journal or the rows of these."""
    trace = zt.open(path)
    without = [block for block in map(trace._block, range(len(trace.blocks))) if lacks_rows(block)]
    return [
        chain
        for block in without
        for chain in block.chains
        if trace.recorded[chain] or block.journal_file is None
    ]


def check(path: Path, but: Sequence[int] = ()) -> list[int]:
    """Assert that every draw is right, and every checkpoint belongs to a draw; returns counts."""
    trace = zt.open(path)
    counts: list[int] = trace.recorded.tolist()
    for chain, count in enumerate(counts):
        if chain in but:
            continue
        burn_in = trace.burn_in
        for warmup, draws in ((True, range(min(count, burn_in))), (False, range(burn_in, count))):
            if warmup and not burn_in:
                continue
            for group, values in VALUES.items():
                shown = f"warmup_{group}" if warmup else group
                dataset = trace.dataset(shown, chains=[chain])
                for name, value in values.items():
                    got = dataset[name].values[0].tolist()
                    expected = [np.asarray(value(chain, draw)).tolist() for draw in draws]
                    if got != expected:
                        why = f"{path}: {shown}/{name} of chain {chain}"
                        raise TrialFailed("wrong", why)
    for number in range(len(trace.blocks)):
        block = trace._block(number)
        found = last_checkpoint(block)
        if found is not None and block.chains[0] not in but and not lacks_rows(block):
            draws, state, _ = found
            assert draws <= counts[block.chains[0]], f"{path}: {block}, {found}"
            assert state["draw"] == draws
    return counts


def continue_run(path: Path) -> None:
    """Record what is left, finish, and assert that every draw is right."""
    trace = zt.open(path, "a")
    for number in range(len(trace.blocks)):
        chains = trace._block(number).chains
        with trace.writer(chains if len(chains) > 1 else chains[0], force=True) as writer:
            start, _ = writer.resume()
            for draw in range(start, TOTAL):
                writer.record(**values_of(chains, draw))
    require_all(path)
    trace.finish()
    require_all(path)


def require_all(path: Path) -> None:
    if {*(counts := check(path))} != {TOTAL}:
        raise TrialFailed("lost", f"{path}: {counts} of {TOTAL} draws")


def trial(seed: int, folder: Path, seen: Counter[str]) -> None:
    """Put traces together of one that is recorded, and count them and their draws."""
    chooser = random.Random(seed)
    path = folder / "run.zarr"
    trace = create(path, chooser)
    moments = Moments(path)
    record(trace, moments, chooser, steps=chooser.randrange(10, 60))
    for number in range(4):
        last = chooser.randrange(len(moments.files))
        first = max(0, last - chooser.choice([0, 1, 3, 10, 1000]))
        power_is_lost = chooser.random() < 0.3
        copy = folder / f"copy-{number}.zarr"
        moments.put_together(copy, first, last, chooser, power_is_lost)
        lacking = lacking_journals(copy)
        for chain in lacking:
            # Nothing says which of its draws are there: right, or an error.
            with suppress(zt.errors.DamagedTraceError):
                check(copy, but=[other for other in range(trace.chains) if other != chain])
        try:
            found = check(copy, but=lacking)
        except zt.errors.DamagedTraceError:
            # Without a journal a copy says which chunks it lacks.
            if first == last or trace._layout.journal:
                raise
            seen.update({"copies": 1, "torn copies": 1, "copies that said what they lack": 1})
            continue
        were = moments.counts[first]
        if first == last and found != were:
            raise TrialFailed("lost", f"{copy} has {found} of {were} draws")
        seen.update({
            "copies": 1,
            "torn copies": int(first < last),
            "draws": sum(were),
            "draws not proven": sum(
                max(0, was - now) for was, now in zip(were, found, strict=True)
            ),
        })  # fmt: skip
        if number < 2 and not lacking:
            continue_run(copy)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes = Outcomes()
    for seed in range(options.seed, options.seed + options.trials):
        with tempfile.TemporaryDirectory() as folder, outcomes.trial(seed):
            trial(seed, Path(folder), outcomes.seen)
    print(outcomes)
    return outcomes.exit_code


if __name__ == "__main__":
    sys.exit(main())
