"""What a page says in words, as HTML: names come from a store, so all of it is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from ..diagnostics.verdict import Finding
from ..messages import printable, rounded_down
from ..watching.lines import duration, number, who
from ..watching.progress import ChainLook
from .content import Content, DrawnScalar, OverDraws
from .style import LINES

_MOST_CHAINS = 100
_LONG = 300  # characters of a fact
_SHORT = 40  # characters of a label in a list


def escape(text: object) -> str:
    """Text of a store as HTML; of dollar signs no formula is made."""
    return html.escape(printable(text)).replace("$", "&#36;")


def heading(content: Content) -> str:
    """The name of the run, and its state."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in content.headlines)
    name = content.title.rstrip("/").rpartition("/")[2]
    return f"<h1>{escape(name)}</h1>{lines}"


def verdict(content: Content) -> str:
    """The verdict with all its checks, and what is left out."""
    kind = _kind(content.is_good)
    said = f'<h2>Verdict</h2><p class="{kind}"><b>{escape(content.verdict)}</b></p>'
    checks = "".join(map(_finding, content.findings))
    notes = "".join(f'<li class="bad">{escape(note)}</li>' for note in content.notes)
    return f"{said}<ul>{checks}{notes}</ul>"


def _finding(finding: Finding) -> str:
    step = f'<br><span class="soft">Next: {escape(finding.next)}</span>' if finding.next else ""
    return f'<li class="{_kind(finding.good)}">{escape(finding.says)}{step}</li>'


def _kind(is_good: bool | None) -> str:
    return {True: "good", False: "bad", None: "soft"}[is_good]


def section(title: str, *says: str) -> str:
    """The heading of a section, and sentences below it."""
    return f"<h2>{escape(title)}</h2>" + "".join(f'<p class="soft">{one}</p>' for one in says)


def key_to_lines(lines: Sequence[str]) -> str:
    """Which colour is which chain."""
    keys = (
        f'<span class="whole"><span class="key" style="background:{LINES[place % len(LINES)]}">'
        f"</span>{escape(line)}</span> "
        for place, line in enumerate(lines)
    )
    return f"<p>{''.join(keys)}</p>"


def name_of(drawn: DrawnScalar) -> str:
    """The title of a rank plot."""
    return f'<p class="name">{escape(drawn.label)}</p>'


def scalar(drawn: DrawnScalar) -> str:
    """The title of a trace: its name, R-hat and ESS."""
    numbers = ""
    if not math.isnan(drawn.rhat) or not math.isnan(drawn.ess_bulk):
        kind = "bad" if drawn.is_bad else "soft"
        bulk, tail = rounded_down(drawn.ess_bulk), rounded_down(drawn.ess_tail)
        ess = f"ESS {bulk} in the bulk, {tail} in the tails"
        numbers = f' <span class="{kind}">R-hat {number(drawn.rhat, 3)}, {ess}</span>'
    note = f'<br><span class="bad">{escape(drawn.note)}</span>' if drawn.note else ""
    return f'<p><span class="name">{escape(drawn.label)}</span>{numbers}{note}</p>'


def over_draws(over: OverDraws) -> str:
    """Whose R-hat is drawn."""
    which = "all of them" if len(over.labels) == 1 else f"{len(over.labels)} scalars"
    return f"The first draws of all chains, {which}; red are those that the verdict names."


def chains(looks: Sequence[ChainLook]) -> str:
    """A row for each chain: how far it is, and what its sampler said last."""
    heads = (
        *("chains", "progress", "draws", "behind", "state", "draws/s", "divergences", "step size"),
        *("tree depth", "acceptance", "lp", "last draw"),
    )
    most = max((look.draws for look in looks), default=0)
    rows = [_chain(look, most) for look in looks[:_MOST_CHAINS]]
    dead = [f"<p>{escape(who(look))}</p>" for look in looks if look.writer in ("dead", "silent")]
    more = ""
    if len(looks) > _MOST_CHAINS:
        more = f'<p class="soft">The first {_MOST_CHAINS} of {len(looks):,} writers.</p>'
    return f"{''.join(dead[:5])}{_table(rows, heads)}{more}"


def _chain(look: ChainLook, most: int) -> tuple[str, ...]:
    goal = look.planned or most or 1
    bar = f'<progress max="{goal}" value="{min(look.draws, goal)}"></progress>'
    of = "" if look.planned is None else f" of {look.planned:,}"
    state = look.phase if look.writer in ("none", "alive") else f"{look.phase}, {look.writer}"
    return (
        escape(look.label.removeprefix("chains ").removeprefix("chain ")),
        bar,
        f"{look.draws:,}{of}",
        f"{most - look.draws:,}",
        escape(state),
        number(look.rate, 1),
        "-" if look.divergences is None else f"{look.divergences:,}",
        _digits(look.step_size),
        number(look.tree_depth, 1),
        number(look.acceptance, 3),
        _digits(look.lp),
        "-" if look.idle is None else f"{duration(look.idle)} ago",
    )


def _digits(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _table(rows: Iterable[Sequence[str]], heads: Sequence[str] = ()) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values; a long value is folded away."""
    return "<table>" + "".join(map(_fact, rows)) + "</table>"


def _fact(row: tuple[str, str]) -> str:
    name, value = row
    text = escape(value)
    if len(value) > _LONG:
        text = f"<details><summary>{len(value):,} characters</summary>{text}</details>"
    return f'<tr><th>{escape(name)}</th><td class="long">{text}</td></tr>'


def shortened(label: str) -> str:
    """A label for a list."""
    text = printable(label)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."
