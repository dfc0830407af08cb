"""Looks as a view for people, for the width of a terminal; in a notebook as HTML."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..messages import counted, printable, rounded_down
from .lines import (
    duration,
    effective,
    flushed_words,
    how_far,
    number,
    time_words,
    without_writer,
)
from .look import LOOKS, Gone, Look, WatchedValue
from .progress import ChainLook

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

MOST_CHAINS = 16  # writers with a line each
SLOWEST = 5
SHORTEST_COURSE, LONGEST_COURSE = 9, 16  # characters
_SO_FAR = " so far"
_ASCII = " .:-=+*#"
_BLOCKS = "▁▂▃▄▅▆▇█"
_BAD_RHAT = 1.01
_RHAT_STEPS = (1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5)
_NUMBERS = ("draws", "draws/s", "diverging", "step size", "depth", "accept", "lp", "last draw")
_STYLES = {"dead": "bold red", "silent": "yellow", "closed": "yellow"}


class Screen:
    """Draws the looks in place, as long as it is entered.

    Parameters
    ----------
    live : bool
        Whether each look takes the place of the one before.
    """

    def __init__(self, live: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(markup=False, emoji=False, highlight=False)
        self._live = (
            Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
            if live
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, seen: Sequence[Look | Gone]) -> None:
        """Draw one look at each trace."""
        drawn = view(self._console, seen)
        if self._live is None:
            self._console.print(drawn)
        else:
            self._live.update(drawn, refresh=True)


def as_html(seen: Sequence[Look | Gone], width: int = 100) -> str:
    """The looks as HTML, for a notebook."""
    import io

    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        record=True,
        width=width,
        height=60,
        markup=False,
        emoji=False,
        highlight=False,
        force_jupyter=False,
    )
    console.print(view(console, seen))
    return console.export_html(
        inline_styles=True,
        code_format='<pre style="line-height:1.2;font-family:monospace">{code}</pre>',
    )


def view(console: Console, seen: Sequence[Look | Gone]) -> RenderableType:
    """The looks, as wide and as high as a console."""
    from rich.console import Group

    height = max(8, (console.height - 1) // max(1, len(seen)))
    ascii_only = not console.encoding.startswith("utf")
    return Group(*(part for one in seen for part in _parts(one, console.width, height, ascii_only)))


def _parts(seen: Look | Gone, width: int, height: int, ascii_only: bool) -> Iterator[Any]:
    if isinstance(seen, Gone):
        yield _line(f"{seen.path}: gone for {duration(seen.seconds)}", "bold red")
        yield _line(seen.reason)
        return
    yield _line(f"{seen.path}  {seen.status}", "bold")
    yield _line(", ".join(filter(None, [how_far(seen), time_words(seen)])))
    chains = _chains(seen, width, ascii_only)
    yield from chains
    below = list(_below(seen))
    used = 3 + min(len(seen.chains), MOST_CHAINS) + len(below)
    values = seen.values[: max(1, height - used - 2)]
    if seen.rhat_draws:
        yield _rhat_line(seen)
        yield _values(values, width, ascii_only)
    elif all(chain.phase in ("waiting", "warmup") for chain in seen.chains):
        yield _line("no draw after warmup yet, and no R-hat of warmup", "dim")
    yield from below


def _line(text: str, style: str = "") -> Any:
    from rich.text import Text

    return Text(printable(text), style)


def _below(look: Look) -> Iterator[Any]:
    for writer, text in without_writer(look):
        yield _line(text, _STYLES[writer])
    if look.only_flushed:
        yield _line(flushed_words(look), "dim")
    for note in look.notes:
        yield _line(note, "dim")


def _rhat_line(look: Look) -> Any:
    words = f"split R-hat of {look.rhat_draws} draws a chain"
    if look.exact_draws:
        words += f", the other columns of {look.exact_draws}"
    return _line(words, "dim")


# Chains ---------------------------------------------------------------------------------------


def _chains(look: Look, width: int, ascii_only: bool) -> Iterator[Any]:
    chains = look.chains
    if len(chains) > MOST_CHAINS:
        yield _histogram(chains, ascii_only)
        waiting = [chain for chain in chains if chain.phase != "done"]
        chains = sorted(waiting, key=lambda chain: chain.draws)[:SLOWEST]
        if not chains:
            return
        yield _line(f"the {counted(len(chains), 'chain')} with the fewest draws:", "dim")
    yield _chain_table(chains, look.course_of, width, ascii_only)


def _histogram(chains: list[ChainLook], ascii_only: bool) -> Any:
    """How many chains have which part of their draws, in tenths."""
    most = max(chain.draws for chain in chains) or 1
    parts = [0] * 10
    for chain in chains:
        share = chain.draws / (chain.planned or most)
        parts[min(9, int(10 * share))] += 1
    bars = sparkline([part / max(parts) for part in parts], ascii_only)
    return _line(f"{len(chains)} writers, from 0 to 100 % of their draws: |{bars}|")


def _chain_table(chains: list[ChainLook], course_of: str, width: int, ascii_only: bool) -> Any:
    from rich.table import Table
    from rich.text import Text

    headings = ["chain", "phase", "draws"]
    if width >= 60:
        headings.insert(1, "")
        headings.append("draws/s")
    if width >= 72:
        headings += ["diverging", "step size"]
    if width >= 110:
        headings += ["depth", "accept", "lp", "last draw"]
    rows = []
    for chain in chains:
        cells = {
            "chain": chain.label.removeprefix("chain ").removeprefix("chains "),
            "": _bar(chain, 20 if width >= 120 else 8, ascii_only),
            "phase": chain.writer if chain.writer in _STYLES else chain.phase,
            "draws": f"{chain.draws}" + (f"/{chain.planned}" if chain.planned else ""),
            "draws/s": "-" if chain.rate is None else f"{chain.rate:.3g}",
            "diverging": "-" if chain.divergences is None else str(chain.divergences),
            "step size": "-" if chain.step_size is None else f"{chain.step_size:.3g}",
            "depth": number(chain.tree_depth, 0),
            "accept": number(chain.acceptance, 2),
            "lp": "-" if chain.lp is None else f"{chain.lp:.5g}",
            "last draw": "-" if chain.idle is None else f"{duration(chain.idle)} ago",
        }
        rows.append([cells[heading] for heading in headings])
    widths = [max(map(len, column)) + 2 for column in zip(headings, *rows, strict=True)]
    room = min(width - sum(widths), LONGEST_COURSE)
    if width >= 72 and room >= SHORTEST_COURSE and any(chain.course for chain in chains):
        name = _shortened(printable(course_of), room - len(_SO_FAR), ascii_only)
        headings.append(f"{name}{_SO_FAR}")
        for row, marks in zip(rows, _courses(chains, room, ascii_only), strict=True):
            row.append(marks)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        justify: Any = "right" if heading in _NUMBERS else "left"
        table.add_column(Text(heading), justify=justify, no_wrap=True, overflow="ellipsis")
    for chain, row in zip(chains, rows, strict=True):
        style = _STYLES.get(chain.writer, "dim" if chain.phase == "warmup" else "")
        table.add_row(*(Text(cell, style) for cell in row))
    return table


def _courses(chains: list[ChainLook], length: int, ascii_only: bool) -> Iterator[str]:
    """The course of each chain on one scale, so that chains that disagree are seen."""
    means = [mean for chain in chains for mean in chain.course if math.isfinite(mean)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    for chain in chains:
        parts = len(chain.course)
        picked = [
            chain.course[number * parts // length] for number in range(length if parts else 0)
        ]
        shares = [
            (mean - low) / ((high - low) or 1.0) if math.isfinite(mean) else math.nan
            for mean in picked
        ]
        yield sparkline(shares, ascii_only)


def _bar(chain: ChainLook, length: int, ascii_only: bool) -> str:
    if not chain.planned:
        return ""
    done = min(length, round(length * chain.draws / chain.planned))
    full, empty = ("#", ".") if ascii_only else ("━", "╌")
    return full * done + empty * (length - done)


# Values ---------------------------------------------------------------------------------------


def _values(values: list[WatchedValue], width: int, ascii_only: bool) -> Any:
    from rich.table import Table
    from rich.text import Text

    looks = LOOKS if width >= 100 else LOOKS // 2
    # The headings of numbers with the widths that these need.
    columns = {"R-hat": 7, "ESS": 6}
    if width >= 60:
        columns = {"R-hat": 7, "bulk ESS": 8, "tail ESS": 8}
    if width >= 72:
        columns |= {"MCSE/sd": 7, "R-hat so far": looks}
    if width >= 100 and any(one.exact and not math.isnan(one.exact.rhat_nested) for one in values):
        columns |= {"nested R-hat": 12}
    room = width - sum(columns.values()) - 2 * len(columns)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("variable", no_wrap=True)
    for heading, least in columns.items():
        justify: Any = "left" if heading == "R-hat so far" else "right"
        table.add_column(heading, justify=justify, no_wrap=True, min_width=least)
    for value in values:
        exact = value.exact
        cells = {
            "R-hat": number(value.worst_rhat, 3),
            "ESS": rounded_down(effective(value)),
            "bulk ESS": rounded_down(exact and exact.ess_bulk),
            "tail ESS": rounded_down(exact and exact.ess_tail),
            "nested R-hat": number(exact and exact.rhat_nested, 3),
            "MCSE/sd": number(exact and exact.mcse, 3),
            "R-hat so far": _rhat_marks(value.rhats[-looks:], ascii_only),
        }
        style = "red" if value.worst_rhat > _BAD_RHAT else ""
        shown = _shortened(printable(value.name), room, ascii_only)
        table.add_row(*(Text(text, style) for text in (shown, *(cells[key] for key in columns))))
    return table


def _shortened(name: str, room: int, ascii_only: bool) -> str:
    """A name without its middle, if it is too long: the index at its end tells elements apart."""
    if len(name) <= room:
        return name
    mark = "~" if ascii_only else "…"
    end = min(room // 2, len(name) - name.rfind("[") if "[" in name else 4)
    return f"{name[: room - end - 1]}{mark}{name[len(name) - end :]}"


def _rhat_marks(rhats: Sequence[float], ascii_only: bool) -> str:
    """One character for each R-hat: the same one in all rows, and low where chains agree."""
    steps = [math.nan if math.isnan(rhat) else bisect(_RHAT_STEPS, rhat) / 7 for rhat in rhats]
    return sparkline(steps, ascii_only)


def sparkline(shares: Sequence[float], ascii_only: bool) -> str:
    """One character for each number from 0 to 1; a blank for none."""
    characters = _ASCII if ascii_only else _BLOCKS
    return "".join(
        " " if math.isnan(share) else characters[round(share * (len(characters) - 1))]
        for share in shares
    )
