"""What a trace looks like to a person: in a terminal and in a notebook."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from datetime import datetime
from itertools import filterfalse
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DamagedTraceError
from ..layout.layout import SampledGroup
from ..layout.names import is_of_segments
from ..layout.variables import Variable
from ..messages import counted, printable, range_label
from ..reading.cut import sampling_attrs
from ..store.dtypes import dtype_name

if TYPE_CHECKING:
    from ..trace import Trace


def status(trace: Trace) -> str:
    """One word for where a trace is in its life: new, sampling, complete, or finished."""
    if trace.finished:
        return "finished"
    counts = trace.recorded
    if not counts.any():
        return "new"
    return "complete" if (counts == trace.tune + trace.draws).all() else "sampling"


def size(trace: Trace) -> str:
    """`4 chains × (1000 warmup + 1000 draws)`."""
    warmup = (
        f"({trace.tune} warmup + {trace.draws} draws)" if trace.tune else f"{trace.draws} draws"
    )
    return f"{counted(trace.chains, 'chain')} × {warmup}"


def counts(trace: Trace, most: int = 8) -> str:
    """Recorded draws of each chain, or their range when there are many chains."""
    recorded = trace.recorded
    total = trace.tune + trace.draws
    if (recorded == recorded[0]).all():
        each = " each" * (trace.chains > 1)
        return f"{recorded[0]} of {total}{each}"
    if len(recorded) > most:
        return f"{recorded.min()} to {recorded.max()} of {total}"
    return f"{', '.join(map(str, recorded))} of {total}"


def dropped(trace: Trace) -> str:
    """`, 500 dropped`, of each chain; nothing when none were."""
    return f", {trace.dropped} dropped" if trace.dropped else ""


def safety(trace: Trace) -> str:
    """What a killed process loses."""
    layout = trace._layout
    if trace._location.in_memory:
        return "in memory: all draws are lost with this process"
    if not layout.journal:
        return f"a killed process loses up to {layout.flush_every:g} s of draws"
    power = ", and power loss up to the last checkpoint" if layout.durable else ""
    return f"draws survive kill -9{power}"


def describe_variable(variable: Variable) -> str:
    """`theta (school: 8)`."""
    dims = ", ".join(
        f"{dim}: {length}" for dim, length in zip(variable.dims, variable.shape, strict=True)
    )
    return f"{variable.name} ({dims})" if dims else variable.name


def where_warmup_is(group: SampledGroup) -> str:
    """Whether the draws of warmup lie in the arrays of their own group."""
    return "split" if group.stored_warmup == group.warmup else "not split yet"


def group_lines(trace: Trace) -> list[tuple[str, str]]:
    """Each group with its variables."""
    layout = trace._layout
    lines = []
    for name in trace.groups:
        group = layout.groups.get(name.removeprefix("warmup_"))
        if group is None:
            lines.append((name, ", ".join(key for key, _, _ in _data_variables(trace, name))))
        elif name == group.name:
            lines.append((name, ", ".join(map(describe_variable, group.variables.values()))))
        else:
            draws = counted(group.warmup - layout.dropped, "draw")
            lines.append((name, f"{draws}, {where_warmup_is(group)}"))
    for name in filterfalse(is_of_segments, trace.tables):
        table = trace.table(name)
        columns = ", ".join(table.columns)
        lines.append((f"tables/{name}", f"{counted(len(table), 'row')} of {columns}"))
    segments = trace.segments[:]
    if segments:
        draws = range_label("draw", range(segments[0].start, segments[-1].stop))
        lines.append(("segments", f"{len(segments)}, {draws}"))
    return lines


def as_text(trace: Trace) -> str:
    """The repr of a trace."""
    lines = [(printable(name), printable(content)) for name, content in group_lines(trace)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(
        [
            f"<zarrtrace.Trace {printable(trace.path)}>",
            f"{status(trace)}: {size(trace)}, recorded {counts(trace)}{dropped(trace)}",
            *([safety(trace)] if not trace.finished else []),
            *(f"    {name:<{width}}  {_shorten(content)}" for name, content in lines),
        ]
    )


def _shorten(text: str, width: int = 90) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def as_html(trace: Trace) -> str:
    """The repr of a trace in a notebook: its state, and the tree as xarray shows it."""
    total = trace.tune + trace.draws
    recorded = trace.recorded
    bars = ""
    if not trace.finished and len(recorded) <= 32:
        bars = "".join(
            f"<div>chain {chain} <progress max='{total}' value='{count}'></progress> "
            f"{count} of {total}</div>"
            for chain, count in enumerate(recorded)
        )
    tree: str = trace.to_datatree(save_warmup=True)._repr_html_()  # type: ignore[no-untyped-call]
    return (
        f"<div><strong>zarrtrace.Trace</strong> <code>{html.escape(trace.path)}</code></div>"
        f"<div>{status(trace)}: {html.escape(size(trace))}, recorded {counts(trace)}"
        f"{dropped(trace)}</div>"
        f"{bars}{tree}"
    )


def rows(trace: Trace) -> list[tuple[str, ...]]:
    """A row per variable: group, variable, dtype, draws, draws in a chunk."""
    layout = trace._layout
    found: list[tuple[str, ...]] = []
    for name in trace.groups:
        group = layout.groups.get(name.removeprefix("warmup_"))
        first = name
        if group is None:
            for _, text, dtype in _data_variables(trace, name):
                found.append((first, text, dtype, "", ""))
                first = ""
        elif name == group.name:
            drawn = int(trace.recorded.max()) - group.warmup
            for variable in group.variables.values():
                found.append(
                    (
                        first,
                        describe_variable(variable),
                        dtype_name(variable.declared),
                        str(max(0, drawn)),
                        str(variable.draws_per_chunk),
                    )
                )
                first = ""
        else:
            drawn = max(0, min(int(trace.recorded.max()), group.warmup) - layout.dropped)
            found.append((name, f"the same, {where_warmup_is(group)}", "", str(drawn), ""))
    for name in filterfalse(is_of_segments, trace.tables):
        table = trace.table(name)
        first = f"tables/{name}, {counted(len(table), 'row')}"
        for key, var in table.columns.items():
            text = f"{key} {var.shape}" if var.shape else key
            found.append((first, text, dtype_name(np.dtype(var.dtype)), "", ""))
            first = ""
    return found


def _data_variables(trace: Trace, group: str) -> list[tuple[str, str, str]]:
    """The variables of a group that was given whole: name, name with dimensions, dtype.

    Where the group is damaged, the names that it is known to have.
    """
    try:
        arrays = trace.dataset(group).data_vars
    except DamagedTraceError:
        names = trace._layout.data_groups.get(group, ())
        return [(name, f"{name} (damaged: see check())", "") for name in names]
    found = []
    for key, array in arrays.items():
        dims = ", ".join(f"{dim}: {length}" for dim, length in array.sizes.items())
        found.append((str(key), f"{key} ({dims})" if dims else str(key), str(array.dtype)))
    return found


RUN_HEADINGS = ("name", "model", "status", "chains", "draws", "worst R-hat", "when")


def run_row(name: str, run: Mapping[str, Any]) -> tuple[str, ...]:
    """A run of a folder, as `zarrtrace ls` shows it, from what `Run.describe` says."""
    if run["status"] in ("tables", "damaged"):
        return name, "", run["status"], "", "", "", _local_time(run["when"])
    done = run["recorded"] - run["warmup"]
    draws = f"warmup {run['recorded']} of {run['warmup']}"
    if done > 0 or not run["warmup"]:
        draws = f"{done}" if done == run["draws"] else f"{done} of {run['draws']}"
    rhat = f"{run['worst_rhat']:.3f}" if math.isfinite(run["worst_rhat"]) else "-"
    rhat += "" if run["rhat_of_all"] else "*"
    chains = str(run["chains"])
    return name, run["model"], run["status"], chains, draws, rhat, _local_time(run["when"])


def run_style(heading: str, cell: str) -> str:
    """Headings, and the colour of what should be looked at: R-hat above 1.01, what is damaged."""
    if cell == heading:
        return "bold"
    if heading == "worst R-hat" and cell[:1].isdigit():
        return "red" if float(cell.rstrip("*")) > 1.01 else ""
    return "red" if cell == "damaged" and heading == "status" else ""


def _local_time(when: str) -> str:
    try:
        return f"{datetime.fromisoformat(when).astimezone():%Y-%m-%d %H:%M}" if when else ""
    except (ValueError, OverflowError):
        return when


def facts(trace: Trace) -> list[tuple[str, str]]:
    """What else is worth a line: age, sampling time, library, size on disk."""
    layout = trace._layout
    found = [("created", layout.created_at)]
    spent = sampling_attrs(trace._location, layout).get("sampling_time")
    if spent is not None:
        found.append(("sampling time", f"{spent:.1f} s, the longest chain"))
    for key, value in layout.attrs.items():
        found.append((key, str(value)))
    if trace._location.path is not None:
        files = [file for file in trace._location.path.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        found.append(("on disk", f"{size / 1e6:.1f} MB in {len(files)} files"))
    return found
