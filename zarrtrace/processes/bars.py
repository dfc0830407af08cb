"""A bar for each chain, drawn from what the trace has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..trace import Trace
from .chains import Block, block_name, first_chain


@contextmanager
def progress_bars(trace: Trace, blocks: list[Block], shown: bool) -> Iterator[Callable[[], None]]:
    """A bar for each chain; yields a function that updates them."""
    if not shown:
        yield lambda: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    total = trace.tune + trace.draws if trace.has_end else None
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[phase]:<8}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        # There is no extra thread: this one looks at the trace and draws the bars.
        auto_refresh=False,
    )
    tasks = {
        first_chain(block): display.add_task(
            block_name(block), start=False, total=total, phase="waiting"
        )
        for block in blocks
    }

    def refresh() -> None:
        now = trace._now()
        for chain, task in tasks.items():
            count = int(now.counts[chain])
            if count and not display.tasks[task].started:
                display.start_task(task)
            phase = "warmup" if count < trace.tune else "sampling"
            phase = "done" if 0 < now.end.draws <= count else "waiting" if not count else phase
            # A chain that was asked to stop has a shorter way; one that has no end, none.
            way = now.end.of_chain(count) if now.end.request is not None else total
            display.update(task, completed=count, total=way, phase=phase)
        display.refresh()

    with display:
        try:
            yield refresh
        finally:
            refresh()
