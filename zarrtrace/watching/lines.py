"""Looks as lines: of text for the logs of batch jobs, and of JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from ..life.as_json import to_json
from ..messages import counted, list_chains, printable, rounded_down
from .forecast import TimeLeft
from .look import Gone, Look, WatchedValue
from .progress import ChainLook, Writer

_MOST_NAMED = 5  # chains without a writer


def print_text(seen: Sequence[Look | Gone]) -> None:
    """Print a line of text for each trace."""
    for one in seen:
        print(as_text(one), flush=True)


def print_json(seen: Sequence[Look | Gone]) -> None:
    """Print an object of JSON for each trace, on a line of its own."""
    for one in seen:
        print(as_line(one), flush=True)


# Text -----------------------------------------------------------------------------------------


def as_text(seen: Look | Gone) -> str:
    """One line: when, where, how far, and how well."""
    when = f"{datetime.fromtimestamp(seen.time):%Y-%m-%d %H:%M:%S}"
    if isinstance(seen, Gone):
        return printable(f"{when} {seen.path}: cannot be read: {seen.reason}")
    return printable(f"{when} {seen.path}: {'; '.join(_parts(seen))}")


def _parts(look: Look) -> Iterator[str]:
    yield f"{look.status}, {how_far(look)}"
    rate = draws_per_second(look.chains)
    if rate is not None:
        yield f"{rate:.3g} draws/s"
    divergences = total_divergences(look)
    if divergences:
        yield counted(divergences, "divergence")
    if look.rhat_draws and look.values:
        yield how_well(look)
    left = time_words(look)
    if left:
        yield left
    yield from (text for _, text in without_writer(look))
    if look.only_flushed:
        yield flushed_words(look)
    yield from look.notes


def draws_per_second(chains: Sequence[ChainLook]) -> float | None:
    """The draws a second of all writers that are not done; None where there is none."""
    rates = [chain.rate for chain in chains if chain.rate and chain.phase != "done"]
    return sum(rates) if rates else None


def how_far(look: Look) -> str:
    """`4 chains, 640 to 700 of 1100 draws (58 %)`."""
    draws = [chain.draws for chain in look.chains for _ in chain.chains]
    least, most = min(draws), max(draws)
    span = str(least) if least == most else f"{least} to {most}"
    planned = look.chains[0].planned
    chains = counted(len(draws), "chain")
    if planned is None:
        return f"{chains}, {span} draws"
    share = min(1.0, sum(draws) / (planned * len(draws))) if planned else 1.0
    return f"{chains}, {span} of {planned} draws ({100 * share:.0f} %)"


def how_well(look: Look) -> str:
    """`worst R-hat 1.013 theta[3], smallest ESS 231 mu, of 512 draws`."""
    worst = look.values[0]
    rhat = number(worst.worst_rhat, 3)
    words = ["no R-hat yet"] if rhat == "-" else [f"worst R-hat {rhat} {worst.name}"]
    least = least_effective(look)
    if least is not None:
        words.append(f"smallest ESS {rounded_down(effective(least))} {least.name}")
    return f"{', '.join(words)}, of {look.exact_draws or look.rhat_draws} draws a chain"


def least_effective(look: Look) -> WatchedValue | None:
    """The scalar with the smallest ESS; None where there is none."""
    known = [value for value in look.values if not math.isnan(effective(value))]
    return min(known, key=effective, default=None)


def effective(value: WatchedValue) -> float:
    """The smaller one of bulk and tail ESS; NaN where there is none."""
    exact = value.exact
    return math.nan if exact is None else min(exact.ess_bulk, exact.ess_tail)


def total_divergences(look: Look) -> int | None:
    """After warmup, of all chains; None where the sampler says nothing of them."""
    known = [chain.divergences for chain in look.chains if chain.divergences is not None]
    return sum(known) if known else None


def who(chain: ChainLook) -> str:
    """`chain 2 is dead (process 4711 on node7, 640 draws): run the sampler again, ...`."""
    was = f"process {chain.pid} on {chain.host}, " if chain.pid is not None else ""
    is_or_are = "is" if len(chain.chains) == 1 else "are"
    what = f"{chain.label} {is_or_are} {chain.writer} ({was}{counted(chain.draws, 'draw')})"
    if not chain.has_ended:
        return what
    it_or_them = "it" if len(chain.chains) == 1 else "them"
    return f"{what}: run the sampler again, which resumes {it_or_them} by {chain.resume}"


def without_writer(look: Look) -> Iterator[tuple[Writer, str]]:
    """What is said of chains that have draws to come, and no writer that is surely alive."""
    missing = [chain for chain in look.chains if chain.writer in ("dead", "silent")]
    for chain in missing[:_MOST_NAMED]:
        yield chain.writer, who(chain)
    if len(missing) > _MOST_NAMED:
        yield "dead", f"{len(missing)} writers in all are dead or silent"
    closed = [number for c in look.chains if c.writer == "closed" for number in c.chains]
    if closed:
        are = "is" if len(closed) == 1 else "are"
        what = f"{list_chains(closed)} {are} closed before the last draw"
        yield "closed", f"{what}: run the sampler again to continue"


def time_words(look: Look) -> str:
    """`12 min left, 3 to 7 min to the goal`."""
    words = []
    if look.time_left:
        words.append(f"{duration(look.time_left)} left")
    if look.time_to_goal is not None:
        words.append(_to_goal(look.time_to_goal))
    return ", ".join(words)


def _to_goal(left: TimeLeft) -> str:
    if left.most <= 0:
        return "goal reached"
    least, most = duration(left.least), duration(left.most)
    return f"{least} to {most} to the goal" if least != most else f"{most} to the goal"


def flushed_words(look: Look) -> str:
    """What is seen of a run that is recorded elsewhere."""
    if look.flushed is None:
        return "seen up to the last flush"
    return f"seen up to the last flush, {duration(look.flushed)} ago"


def duration(seconds: float) -> str:
    """`7 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def number(value: float | None, digits: int) -> str:
    """A number with some digits after the point; `-` for none."""
    if value is None or math.isnan(value) or value == -math.inf:
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.1e}"


# JSON -----------------------------------------------------------------------------------------


def as_line(seen: Look | Gone) -> str:
    """A look as an object of JSON on one line."""
    return to_json(as_json(seen), indent=None)


def as_json(seen: Look | Gone) -> dict[str, Any]:
    """A look as data, with the keys that the documentation names."""
    when = datetime.fromtimestamp(seen.time, UTC).isoformat()
    if isinstance(seen, Gone):
        return {"path": seen.path, "time": when, "status": "gone", "reason": seen.reason}
    return {
        "path": seen.path,
        "time": when,
        "status": seen.status,
        "burn_in": seen.burn_in,
        "course_of": seen.course_of,
        "chains": [_chain(chain) for chain in seen.chains],
        "worst_rhat": seen.worst_rhat,
        "rhat_draws": seen.rhat_draws,
        "rhat_chains": list(seen.rhat_chains),
        "exact_draws": seen.exact_draws,
        "watched": seen.watched,
        "of_scalars": seen.of_scalars,
        "values": [_value(value) for value in seen.values],
        "time_left": seen.time_left,
        "time_to_goal": None if seen.time_to_goal is None else list(seen.time_to_goal),
        "only_flushed": seen.only_flushed,
        "flushed": seen.flushed if seen.only_flushed else None,
        "notes": list(seen.notes),
    }


def _chain(chain: ChainLook) -> dict[str, Any]:
    return {
        "chains": list(chain.chains),
        "phase": chain.phase,
        "writer": chain.writer,
        "draws": chain.draws,
        "planned": chain.planned,
        "draws_per_second": chain.rate,
        "idle": chain.idle,
        "divergences": chain.divergences,
        "step_size": chain.step_size,
        "tree_depth": chain.tree_depth,
        "acceptance_rate": chain.acceptance,
        "lp": chain.lp,
        "host": chain.host,
        "pid": chain.pid,
        "resume": chain.resume,
        "course": list(chain.course),
    }


def _value(value: WatchedValue) -> dict[str, Any]:
    exact = value.exact
    return {
        "name": value.name,
        "split_rhat": value.split_rhat,
        "rhat": None if exact is None else exact.rhat,
        "ess_bulk": None if exact is None else exact.ess_bulk,
        "ess_tail": None if exact is None else exact.ess_tail,
        "mcse_over_sd": None if exact is None else exact.mcse,
        "rhat_nested": None if exact is None else exact.rhat_nested,
        "split_rhats": list(value.rhats),
    }
