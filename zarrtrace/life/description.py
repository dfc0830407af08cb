"""Descriptions of a trace for a terminal and a notebook."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DamagedTraceError, StaleViewError
from ..layout.layout import IN_STORE, SampledGroup
from ..layout.variables import Var, Variable
from ..messages import counted, list_chains, printable, range_label
from ..reading.cut import READ_ELSEWHERE
from ..reading.groups import Snapshot, open_all_groups
from ..reading.moment import Moment
from ..sampling_state.block import chain_blocks, read_claims
from ..store.dtypes import dtype_name
from .compact import describe_compacted
from .status import find_status, next_step, parse_time, time_label


class DescribedTable(NamedTuple):
    """A table in the trace."""

    name: str
    columns: Mapping[str, Var]
    rows: int


class DescribedGroup(NamedTuple):
    """A group or table, as `zarrtrace info` shows it.

    Attributes
    ----------
    title : str
        `posterior, 1000 draws`.
    variables : list of tuple of str
        Each variable or column: its name with its dimensions, its dtype, and the draws in a chunk.
    """

    title: str
    variables: list[tuple[str, str, str]]


class Beside(NamedTuple):
    """The tables and segments of a trace.

    Attributes
    ----------
    segments : list of range
        The draws of each segment.
    """

    tables: list[DescribedTable]
    segments: list[range]


def headlines(now: Moment) -> list[str]:
    """The first lines of a description.

    `sampling since 2026-11-26 14:03: 4 chains × 1000 draws, recorded 57 of 1000 each`; what a
    killed process loses, if it can lose anything; and what to do next.
    """
    status = find_status(now)
    lines = [f"{status}: {size(now)}, recorded {counts(now)}{dropped(now)}{left_out(now)}"]
    compacted = describe_compacted(now.layout)
    lines += [compacted] if compacted else []
    if not now.layout.finished:
        lines.append(safety(now))
    step = next_step(now, status.word)
    return [*lines, f"next: {step}"] if step else lines


def size(now: Moment) -> str:
    """`4 chains × (1000 warmup + 1000 draws)`."""
    tune = now.layout.tune
    draws = "any number of draws" if now.layout.draws is None else f"{now.layout.draws} draws"
    each = f"({tune} warmup + {draws})" if tune else draws
    if now.layout.thin > 1:
        each = f"{each} with thin={now.layout.thin}"
    return f"{counted(now.layout.chains, 'chain')} × {each}"


def counts(now: Moment, most: int = 8) -> str:
    """Recorded draws of each chain, or their range when there are many chains."""
    recorded, end = now.counts, _of_total(now)
    if (recorded == recorded[0]).all():
        each = " each" * (now.layout.chains > 1)
        return f"{recorded[0]}{end}{each}"
    if len(recorded) > most:
        return f"{recorded.min()} to {recorded.max()}{end}"
    return f"{', '.join(map(str, recorded))}{end}"


def progress(now: Moment, count: int) -> str:
    """`57 of 1000` draws of one chain, or `57` where no end is declared."""
    return f"{count}{_of_total(now)}"


def _of_total(now: Moment) -> str:
    return "" if now.layout.draws is None else f" of {now.layout.total}"


def dropped(now: Moment) -> str:
    """`, 500 dropped`, for each chain; "" when none were."""
    return f", {now.layout.dropped} dropped" if now.layout.dropped else ""


def left_out(now: Moment) -> str:
    """`, chain 2 left out`, for a trace that was finished without some chains."""
    blocks = now.layout.left_out
    chains = [chain for block in blocks for chain in now.layout.chains_of(block)]
    return f", {list_chains(chains)} left out" if chains else ""


def safety(now: Moment) -> str:
    """What a killed process loses."""
    layout = now.layout
    if now.location.in_memory:
        return "in memory: all draws are lost with this process"
    network = now.location.network
    there = f"on a network file system ({network}), " if network else ""
    loses = f"loses up to {layout.flush_every:g} s of draws"
    if not layout.journal:
        there += "without a journal: " if network else ""
        return f"{there}a killed process {loses}"
    if _has_no_journal_here(now):
        return (
            f"{there}without the journal {layout.journal}, which is not on this machine: a process "
            f"killed here {loses}"
        )
    if network:
        return _safety_on_network(now)
    if now.is_elsewhere:
        return READ_ELSEWHERE
    power = ", and power loss up to the last checkpoint" if layout.durable else ""
    return f"draws survive kill -9{power}"


def _has_no_journal_here(now: Moment) -> bool:
    """Whether chains are recorded on this machine, if anywhere, and not with their journal."""
    layout = now.layout
    if layout.journal == IN_STORE:
        return False
    blocks = chain_blocks(now.location, layout)
    claimed = [(b, c) for b, c in zip(blocks, read_claims(blocks), strict=True) if c is not None]
    if not all(claim.is_of_this_machine for _, claim in claimed):
        return False
    paths = [block.journal_path for block, _ in claimed]
    return not Path(layout.journal).parent.is_dir() or not all(
        path is not None and path.exists() for path in paths
    )


def _safety_on_network(now: Moment) -> str:
    """What a killed process or machine loses, where several machines see the trace."""
    layout = now.layout
    blocks = chain_blocks(now.location, layout)
    hosts = sorted({claim.host for claim in read_claims(blocks) if claim is not None})
    on = f" on {', '.join(hosts)}" if hosts else ""
    where = "in the store" if layout.journal == IN_STORE else f"{layout.journal}{on}"
    return (
        f"on a network file system ({now.location.network}), with the journal {where}: draws "
        f"survive kill -9, other machines see those of the last flush, and a lost machine loses "
        f"up to {layout.flush_every:g} s of draws"
    )


def describe_variable(variable: Variable) -> str:
    """`theta (school: 8)`."""
    dims = ", ".join(
        f"{dim}: {length}" for dim, length in zip(variable.dims, variable.shape, strict=True)
    )
    return f"{variable.name} ({dims})" if dims else variable.name


def where_warmup_is(group: SampledGroup) -> str:
    """Whether the draws of warmup are in the arrays of their own group."""
    return "split" if group.stored_warmup == group.warmup else "not split yet"


def group_lines(now: Moment, beside: Beside) -> list[tuple[str, str]]:
    """Each group with its variables."""
    layout = now.layout
    lines = []
    for name in now.groups:
        group = layout.groups.get(name.removeprefix("warmup_"))
        if group is None:
            given = layout.data_groups.get(name)
            names = given or [key for key, _, _ in _data_variables(now, name)]
            lines.append((name, ", ".join(names)))
        elif name == group.name:
            lines.append((name, ", ".join(map(describe_variable, group.variables.values()))))
        else:
            draws = counted(group.warmup - layout.dropped, "draw")
            lines.append((name, f"{draws}, {where_warmup_is(group)}"))
    for table in beside.tables:
        columns = ", ".join(table.columns)
        lines.append((f"tables/{table.name}", f"{counted(table.rows, 'row')} of {columns}"))
    if beside.segments:
        first, last = beside.segments[0], beside.segments[-1]
        draws = range_label("draw", range(first.start, last.stop))
        lines.append(("segments", f"{len(beside.segments)}, {draws}"))
    return lines


def as_text(now: Moment, beside: Beside) -> str:
    """The repr of a trace."""
    lines = [(printable(name), printable(content)) for name, content in group_lines(now, beside)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(
        [
            f"<zarrtrace.Trace {printable(str(now))}>",
            *headlines(now),
            *(f"    {name:<{width}}  {_shorten(content)}" for name, content in lines),
        ]
    )


def _shorten(text: str, width: int = 90) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def as_html(now: Moment) -> str:
    """The repr of a trace in a notebook: its state, and the tree as xarray shows it."""
    recorded = now.counts
    bars = ""
    if not now.layout.finished and len(recorded) <= 32:
        total = recorded.max() if now.layout.draws is None else now.layout.total
        bars = "".join(
            f"<div>chain {chain} <progress max='{total}' value='{count}'></progress> "
            f"{progress(now, int(count))}</div>"
            for chain, count in enumerate(recorded)
        )
    tree: str = open_all_groups(now)._repr_html_()  # type: ignore[no-untyped-call]
    return (
        f"<div><strong>zarrtrace.Trace</strong> <code>{html.escape(str(now))}</code></div>"
        f"{''.join(f'<div>{html.escape(line)}</div>' for line in headlines(now))}"
        f"{bars}{tree}"
    )


def describe_groups(now: Moment, beside: Beside) -> list[DescribedGroup]:
    """Each group and table with its variables or columns."""
    layout, longest = now.layout, int(now.counts.max())
    found: list[DescribedGroup] = []
    for name in now.groups:
        group = layout.groups.get(name.removeprefix("warmup_"))
        variables: list[tuple[str, str, str]] = []
        if group is None:
            title = name
            variables = [(text, dtype, "") for _, text, dtype in _data_variables(now, name)]
        elif name == group.name:
            title = f"{name}, {counted(max(0, longest - group.warmup), 'draw')}"
            for variable in group.variables.values():
                rounded = variable.rounding_label
                dtype = dtype_name(variable.declared) + (f", {rounded}" if rounded else "")
                chunk = str(variable.draws_per_chunk)
                variables.append((describe_variable(variable), dtype, chunk))
        else:
            drawn = max(0, min(longest, group.warmup) - layout.dropped)
            title = f"{name}, {counted(drawn, 'draw')}, {where_warmup_is(group)}"
        found.append(DescribedGroup(title, variables))
    for table in beside.tables:
        columns = []
        for key, var in table.columns.items():
            text = f"{key} {var.shape}" if var.shape else key
            columns.append((text, dtype_name(np.dtype(var.dtype)), ""))
        title = f"tables/{table.name}, {counted(table.rows, 'row')}"
        found.append(DescribedGroup(title, columns))
    return found


def _data_variables(now: Moment, group: str) -> list[tuple[str, str, str]]:
    """The variables of a group that was passed whole: name, name with dimensions, dtype.

    For a damaged group it returns the names from the layout.
    """
    try:
        arrays = Snapshot(now).dataset(group).data_vars
    except DamagedTraceError:
        names = now.layout.data_groups.get(group, ())
        return [(name, f"{name} (damaged: see check())", "") for name in names]
    except StaleViewError:
        # It was replaced since this moment.
        return [(name, name, "") for name in now.layout.data_groups.get(group, ())]
    found = []
    for key, array in arrays.items():
        dims = ", ".join(f"{dim}: {length}" for dim, length in array.sizes.items())
        found.append((str(key), f"{key} ({dims})" if dims else str(key), str(array.dtype)))
    return found


RUN_HEADINGS = ("name", "model", "status", "since", "chains", "draws", "worst R-hat", "when")


def run_row(name: str, run: Mapping[str, Any]) -> tuple[str, ...]:
    """A run of a folder, as `zarrtrace ls` shows it, from what `Run.describe` says."""
    if run["status"] in ("tables", "damaged"):
        return name, "", run["status"], "", "", "", "", _local_time(run["when"])
    done = run["recorded"] - run["warmup"]
    draws = f"warmup {run['recorded']} of {run['warmup']}"
    if done > 0 or not run["warmup"]:
        is_all = run["draws"] in (None, done)
        draws = f"{done}" if is_all else f"{done} of {run['draws']}"
    rhat = f"{run['worst_rhat']:.3f}" if math.isfinite(run["worst_rhat"]) else "-"
    rhat += "" if run["rhat_of_all"] else "*"
    chains = str(run["chains"])
    since = time_label(run["since"])
    return name, run["model"], run["status"], since, chains, draws, rhat, _local_time(run["when"])


def run_style(heading: str, cell: str) -> str:
    """The style of a cell: headings, and colour for R-hat above 1.01 and damaged runs."""
    if cell == heading:
        return "bold"
    if heading == "worst R-hat" and cell[:1].isdigit():
        return "red" if float(cell.rstrip("*")) > 1.01 else ""
    return "red" if cell == "damaged" and heading == "status" else ""


def _local_time(when: str) -> str:
    return time_label(parse_time(when)) or when


def facts(now: Moment) -> list[tuple[str, str]]:
    """Further lines: age, sampling time, library, size on disk."""
    layout = now.layout
    found = [("created", _local_time(layout.created_at))]
    if now.sampling_time and "sampling_time" not in layout.attrs:
        found.append(("sampling time", f"{now.sampling_time:.1f} s, the longest chain"))
    if now.end.request is not None:
        found.append(("stops", str(now.end.request)))
    for key, value in layout.attrs.items():
        found.append((key, str(value)))
    sizes = file_sizes(now)
    if sizes is not None:
        found.append(("on disk", f"{sum(sizes) / 1e6:.1f} MB in {len(sizes)} files"))
    return found


# Of dozens of settings, such as CmdStan's, the first that a person looks for.
_SETTINGS_SHOWN_FIRST = (
    *("model", "method", "algorithm", "engine", "num_warmup", "num_samples", "thin"),
    *("seed", "delta", "target_accept", "max_depth", "maxdepth", "metric", "stepsize"),
)


def short_fact(value: str, width: int) -> str:
    """The value of a fact in about `width` characters, and how much more there is.

    A JSON object is shown as `delta 0.8, max_depth 10, and 31 more (see --json)`.
    """
    if len(value) <= width:
        return value
    settings = _settings_in(value)
    if not settings:
        return f"{value[:width]}... ({len(value)} characters, see --json)"
    first = [name for name in _SETTINGS_SHOWN_FIRST if name in settings]
    names = [*first, *(name for name in settings if name not in first)]
    text = ""
    for shown, name in enumerate(names):
        content = settings[name]
        content = content if isinstance(content, str) else json.dumps(content)
        longer = f"{text}, {name} {content}" if text else f"{name} {content}"
        if len(longer) > width:
            rest = len(names) - shown
            said = f"{text}, and {rest} more" if text else counted(rest, "setting")
            return f"{said} (see --json)"
        text = longer
    return text


def _settings_in(value: str) -> dict[str, Any]:
    """The JSON object in an attribute; empty for another text."""
    try:
        content = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def file_sizes(now: Moment) -> list[int] | None:
    """The bytes of each file; None where the trace is not in a directory."""
    if now.location.path is None:
        return None
    return [file.stat().st_size for file in now.location.path.rglob("*") if file.is_file()]
