"""A model of a client of a network file system: what another machine wrote arrives late.

One directory is written. In another one, which a reader looks at, its changes appear in any order:
pages of 4 KiB of a file that is changed in place, and files that were renamed to their places.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import zarrtrace as zt
from zarrtrace.sampling_state import journal, journal_count
from zarrtrace.store import network

PAGE = 4096
# The rows of a chunk are on three pages, the first of which has the count as well.
WIDTH, LENGTH = 100, 12


class Client:
    """What another machine sees of a directory."""

    def __init__(self, written: Path, seen: Path) -> None:
        self.written, self.seen = written, seen
        self.moments: list[dict[str, tuple[int, bytes]]] = []
        self.arrived: dict[tuple[str, int], int] = {}

    def snapshot(self) -> None:
        """Keep what the server, or the cache of the writer's machine, has now."""
        files = (path for path in self.written.rglob("*") if path.is_file())
        self.moments.append(
            {
                str(path.relative_to(self.written)): (path.stat().st_ino, path.read_bytes())
                for path in files
                if path.suffix != ".partial"
            }
        )

    def receive(self, choose: np.random.Generator) -> None:
        """Let some changes arrive, each up to any moment since the last one that arrived."""
        for name in sorted({name for moment in self.moments for name in moment}):
            if name.endswith("zarr.json"):
                self._put(name, self.moments[-1][name][1])
            elif "/journal/" in name:
                self._receive_pages(name, choose)
            else:
                at = self._choose(name, 0, choose)
                if name in self.moments[at]:
                    self._put(name, self.moments[at][name][1])

    def _choose(self, name: str, page: int, choose: np.random.Generator) -> int:
        last = len(self.moments) - 1
        before = self.arrived.get((name, page), 0)
        at = int(choose.choice([before, last, choose.integers(before, last + 1)]))
        self.arrived[name, page] = at
        return at

    def _receive_pages(self, name: str, choose: np.random.Generator) -> None:
        size = len(self.moments[-1].get(name, (0, b""))[1])
        pages = []
        for page in range(-(-size // PAGE)):
            content = self.moments[self._choose(name, page, choose)].get(name, (0, bytes(size)))[1]
            # What the client has forgotten looks empty until it has asked for it again.
            content = bytes(size) if choose.random() < 0.1 else content
            pages.append(content[page * PAGE : (page + 1) * PAGE])
        if pages:
            self._put(name, b"".join(pages))

    def _put(self, name: str, content: bytes) -> None:
        path = self.seen / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # In place, so that the numbers of the file do not tell the reader anything.
        path.write_bytes(content)


def draw_of(draw: int, text: Iterable[str]) -> dict[str, Any]:
    """The values of a draw."""
    return {"x": draw + np.arange(WIDTH) / 1000, **dict.fromkeys(text, str(draw))}


def look_by_turns(
    kind: bool | str, steps: list[tuple[str, int]], names: bool = True
) -> tuple[int, list[int]]:
    """Do the steps; returns how many of the draws read were wrong, and how many each look saw."""
    wrong, seen_draws = 0, []
    text = {"name": zt.Var(dtype=str)} if names else {}
    with tempfile.TemporaryDirectory() as folder:
        written, seen = Path(folder, "run.zarr"), Path(folder, "seen.zarr")
        table = Path(folder, "mountinfo")
        table.write_text(f"1 0 0:1 / {folder} rw - nfs4 server:/ rw\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network, "_MOUNTS", table)
            trace = zt.create(
                written,
                chains=1,
                draws=200,
                posterior={"x": zt.Var(shape=WIDTH, draws_per_chunk=LENGTH), **text},
                journal=kind,
            )
            client = Client(written, seen)
            client.snapshot()

            chooser = np.random.default_rng(1)

            def receive_more(arrival: network.Arrival) -> bool:
                """More arrives while the reader waits."""
                client.receive(chooser)
                return True

            patch.setattr(network.Arrival, "is_due", receive_more)
            with trace.writer(0) as writer:
                for step, number in steps:
                    if step == "record":
                        for _ in range(number):
                            writer.record(draw_of(writer.recorded, text))
                            client.snapshot()
                    elif step == "checkpoint":
                        writer.checkpoint({"draw": writer.recorded})
                    else:
                        client.receive(np.random.default_rng(number))
                        found = zt.open(seen).get(["x", *text])
                        draws = found["x"].shape[1]
                        seen_draws.append(draws)
                        wrong += sum(
                            not np.array_equal(found[key][0, draw], expected)
                            for draw in range(draws)
                            for key, expected in draw_of(draw, text).items()
                        )
                    client.snapshot()
    return wrong, seen_draws


histories = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(1, 9)),
        st.tuples(st.just("checkpoint"), st.just(0)),
        st.tuples(st.just("look"), st.integers(0, 2**16)),
    ),
    max_size=16,
)


@pytest.mark.once("oldest")
@settings(max_examples=25)
@example(steps=[("record", 5), *[("look", seed) for seed in range(30)]], kind="store")
@given(steps=histories, kind=st.sampled_from([False, "store"]))
def test_every_draw_that_another_machine_reads_is_the_draw_recorded(
    steps: list[tuple[str, int]], kind: bool | str
) -> None:
    wrong, seen_draws = look_by_turns(kind, steps)
    assert wrong == 0
    assert seen_draws == sorted(seen_draws)


@pytest.mark.once("newest")
def test_the_model_finds_a_reader_that_trusts_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same history without and with the planted fault."""
    # Four looks after each draw of one chunk.
    steps = []
    for seed in range(4 * (LENGTH - 2)):
        steps += [("record", seed % 4 == 0), ("look", seed)]
    wrong, seen_draws = look_by_turns("store", steps, names=False)
    assert wrong == 0
    assert sum(seen_draws) > LENGTH
    for module in (journal, journal_count):
        monkeypatch.setattr(module, "is_written_here", lambda *_: True)
    assert look_by_turns("store", steps, names=False)[0] > 0
