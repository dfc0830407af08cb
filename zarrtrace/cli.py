"""The command `zarrtrace`: a demo, and a look at a trace."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from . import __version__, folder
from .adopt.follow import follow
from .adopt.from_datatree import from_datatree
from .errors import TraceError, TraceExistsError, TraceNotFoundError
from .life import as_json, change
from .life import description as summary
from .life.check import checksummed
from .life.finish import describe_unequal
from .messages import counted, printable
from .opening import open
from .processes import run
from .trace import Trace

_DEMO = "eight schools of zarrtrace demo"  # the name of its model, by which it knows its trace
_MOST_STEPS = 5  # lines of `ls` that say what to do next


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it did what was asked, 1 with a message when it could not."""
    parser = argparse.ArgumentParser(
        prog="zarrtrace", description="A trace store for MCMC: look at traces, try it out."
    )
    parser.add_argument("--version", action="version", version=f"zarrtrace {__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the code a failure comes from"
    )
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--storage-option",
        action="append",
        default=[],
        type=_storage_option,
        metavar="KEY=VALUE",
        help="for a URL, an option of fsspec, JSON or text, such as anon=true or "
        'client_kwargs=\'{"endpoint_url": "..."}\'; may be given several times',
    )
    shown = argparse.ArgumentParser(add_help=False, parents=[place])
    shown.add_argument("--json", action="store_true", help="print JSON, for programs")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="sample the eight schools in four processes and show what comes out"
    )
    demo.add_argument(
        "path", nargs="?", default="demo.zarr", help="where to keep the trace (%(default)s)"
    )
    demo.add_argument("--tune", type=int, default=1000, help="draws of warmup (%(default)s)")
    demo.add_argument("--draws", type=int, default=1000, help="draws after it (%(default)s)")
    info = commands.add_parser("info", parents=[shown], help="show a trace, finished or running")
    info.add_argument("path", metavar="PATH", help="a trace: run.zarr, a URL, or a finished .zip")
    listing = commands.add_parser(
        "ls", parents=[shown], help="list the runs of a folder, finished or running"
    )
    listing.add_argument(
        "folder", nargs="?", default=".", help="a directory or URL with traces in it (%(default)s)"
    )
    check = commands.add_parser(
        "check", parents=[shown], help="read all of a trace and name what is damaged"
    )
    check.add_argument("path", metavar="PATH", help="a trace that is on a disk or at a URL")
    repair = commands.add_parser(
        "repair",
        parents=[place],
        help="fix a damaged trace, keep what can be kept, say what was lost",
    )
    repair.add_argument("path", metavar="PATH", help="a trace that no chain is recording")
    finish = commands.add_parser(
        "finish",
        parents=[place],
        help="finish a trace with the draws that it has, so that any Zarr reader opens it",
    )
    finish.add_argument("path", metavar="PATH", help="a trace that no chain is recording")
    finish.add_argument(
        "--chains", metavar="N", type=int, nargs="+", help="leave out all chains but these"
    )
    packing = commands.add_parser(
        "pack", parents=[place], help="write a finished trace to one .zip file"
    )
    packing.add_argument("path", metavar="PATH", help="a finished trace")
    packing.add_argument("out", metavar="OUT", nargs="?", help="the file (PATH.zip)")
    adopt = commands.add_parser(
        "adopt", parents=[place], help="make a trace of what another library sampled"
    )
    adopt.add_argument(
        "path",
        metavar="PATH",
        nargs="+",
        help="netCDF of ArviZ, Zarr of nutpie or others, HDF5 of emcee, CSV of CmdStan or their "
        "directory, other tables of draws: the files of all chains",
    )
    adopt.add_argument("out", metavar="OUT", help="where the trace goes")
    following = commands.add_parser(
        "follow",
        parents=[place],
        help="record CSV files of CmdStan, or other tables of draws, as they grow",
    )
    following.add_argument(
        "files", metavar="FILE", nargs="+", help="the text file of each chain; it may appear later"
    )
    following.add_argument("out", metavar="OUT", help="where the trace goes, or is already")
    following.add_argument(
        "--once", action="store_true", help="record what is there now, and do not wait for the rest"
    )
    options = parser.parse_args(arguments)
    try:
        code = _run_command(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nzarrtrace: interrupted; every recorded draw is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has enough; Python flushes again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.traceback:
            raise
        print(f"zarrtrace: {_reason(error)}", file=sys.stderr)
        return 1


def _run_command(options: argparse.Namespace) -> int:
    """Run a command that was parsed; 0, or 1 where it found damage."""
    storage = dict(getattr(options, "storage_option", ())) or None
    if options.command == "demo":
        show_demo(options.path, options.tune, options.draws)
    elif options.command == "ls":
        found = folder.open(options.folder, storage_options=storage)
        (print_runs if options.json else show_runs)(found)
    elif options.command == "check":
        trace = open(options.path, storage_options=storage)
        return (print_check if options.json else show_check)(trace)
    elif options.command == "repair":
        show_repair(open(options.path, "a", storage_options=storage))
    elif options.command == "finish":
        show_finish(open(options.path, "a", storage_options=storage), options.chains)
    elif options.command == "pack":
        print(printable(open(options.path, storage_options=storage).pack(options.out)))
    elif options.command == "adopt":
        paths = options.path
        result = paths[0] if len(paths) == 1 else paths
        show_info(from_datatree(result, options.out, storage_options=storage))
    elif options.command == "follow":
        show_followed(options.files, options.out, options.once, storage)
    else:
        trace = open(options.path, storage_options=storage)
        (print_info if options.json else show_info)(trace)
    return 0


def _storage_option(text: str) -> tuple[str, Any]:
    """`anon=true` as ("anon", True): the value is JSON, or text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"give KEY=VALUE, such as anon=true, got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _reason(error: Exception) -> str:
    """What went wrong; of an error that is not ours, its type too, on one line."""
    if isinstance(error, TraceError):
        return "\n".join(map(printable, str(error).splitlines()))
    said = " ".join(str(error).split()) or "no reason given"
    hint = "" if isinstance(error, OSError) else "; zarrtrace --traceback ... shows where"
    return printable(f"{type(error).__name__}: {said}{hint}")


# info -----------------------------------------------------------------------------------------


def print_info(trace: Trace) -> None:
    """Print a trace for programs."""
    print(as_json.to_json(as_json.describe_trace(trace._now(), trace._beside())))


def show_info(trace: Trace) -> None:
    """Print a trace as a person wants to see it."""
    from rich.console import Console
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    now = trace._now()
    console = Console(markup=False, emoji=False)
    console.print(Text(printable(trace.path), "bold"))
    for line in summary.headlines(now):
        console.print(printable(line), soft_wrap=True)
    longest = int(now.counts.max())
    total = longest if now.layout.draws is None else now.layout.total
    if not now.layout.finished and now.counts.any() and trace.chains <= 32:
        bars = Table.grid(padding=(0, 1))
        for chain, count in enumerate(now.counts.tolist()):
            bars.add_row(
                f"chain {chain}", ProgressBar(total, count, width=40), summary.progress(now, count)
            )
        console.print(bars)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("group", "variable", "dtype", "draws", "draws in a chunk"):
        justify: Literal["left", "right"] = "right" if heading.startswith("draws") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in ("group", "variable"))
    for row in summary.rows(now, trace._beside()):
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
    for key, value in summary.facts(now):
        console.print(printable(f"{key}: {value}"), highlight=False)


# ls -------------------------------------------------------------------------------------------


def print_runs(found: folder.Runs) -> None:
    """Print the runs of a folder for programs."""
    runs = [as_json.describe_run(run.name, run.describe(), run.settings) for run in found]
    print(as_json.to_json(runs))


def show_runs(found: folder.Runs) -> None:
    """Print a line for each run of a folder."""
    from rich.console import Console
    from rich.text import Text

    descriptions = [(run.name, run.describe()) for run in found]
    rows = [summary.RUN_HEADINGS, *map(_run_row, descriptions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # In one piece: a table of rich takes longer for a thousand lines than reading the runs.
    text, styles = "", []
    for row in rows:
        for heading, cell, width in zip(summary.RUN_HEADINGS, row, widths, strict=True):
            right = heading in ("chains", "draws", "worst R-hat")
            style = summary.run_style(heading, cell)
            if style:
                styles.append((style, len(text), len(text) + width))
            text += f"{cell.rjust(width) if right else cell.ljust(width)}  "
        text = text.rstrip() + "\n"
    listed = Text(text, no_wrap=True)
    for style, start, end in styles:
        listed.stylize(style, start, end)
    console = Console()
    console.print(listed, soft_wrap=True, end="")
    if not all(described["rhat_of_all"] for _, described in descriptions):
        console.print("* of the first variables, a million numbers of them")
    steps = {f"{run['status']}: {run['next']}": run["next"] for _, run in descriptions}
    for line in [line for line, step in steps.items() if step][:_MOST_STEPS]:
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
    for name, described in descriptions:
        if described["error"]:
            said = printable(f"{name}: {described['error']}")
            console.print(said, highlight=False, markup=False, emoji=False, soft_wrap=True)
    total = printable(f"{counted(len(found), 'run')} in {found.folder}")
    console.print(total, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _run_row(described: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    return tuple(map(printable, summary.run_row(*described)))


# check and repair -----------------------------------------------------------------------------


def print_check(trace: Trace) -> int:
    """Print what is damaged for programs; 1 when anything is."""
    found = trace.check()
    path, has_checksums = trace.path, checksummed(trace._layout)
    print(as_json.to_json(as_json.describe_check(path, found, has_checksums)))
    return 1 if found else 0


def show_check(trace: Trace) -> int:
    """Print what is damaged; 1 when anything is."""
    found = trace.check()
    for damage in found:
        print(printable(damage))
    if found:
        path = printable(trace.path)
        wrong = "1 thing is wrong" if len(found) == 1 else f"{len(found)} things are wrong"
        print(f"{wrong}; `zarrtrace repair {path}` fixes what it can")
        return 1
    sure = checksummed(trace._layout)
    print(
        f"{printable(trace.path)}: all is well, every chunk was read"
        + ("" if sure else "; it has no checksums (checksum=True), so a flipped bit may hide")
    )
    return 0


def show_repair(trace: Trace) -> None:
    """Print what was fixed and what was lost."""
    for line in trace.repair() or ["nothing to fix"]:
        print(printable(line))


# finish ---------------------------------------------------------------------------------------


def show_finish(trace: Trace, chains: list[int] | None) -> None:
    """Finish a trace, and print which draws other readers find in it."""
    before = trace._layout
    change.finish(trace._hierarchy, chains)
    now = trace._now()
    after = (now.counts - trace.burn_in)[now.layout.kept_chains]
    is_as_before = before.finished and before.left_out == now.layout.left_out
    print(
        f"{printable(trace.path)} {'was already' if is_as_before else 'is'} finished: "
        f"{counted(len(after), 'chain')} of {counted(int(after.min()), 'draw')} after "
        f"{trace.burn_in - trace.dropped} of warmup"
    )
    unequal = describe_unequal(now)
    if unequal:
        print(printable(unequal))


# follow ---------------------------------------------------------------------------------------


def show_followed(
    files: list[str], out: str, once: bool, storage_options: dict[str, Any] | None
) -> None:
    """Record text files of draws, and print the trace."""
    if not once:
        print(
            f"recording into {printable(out)}; Ctrl-C stops, and the same command continues",
            flush=True,
        )
    show_info(follow(files, out, once=once, storage_options=storage_options))


# demo -----------------------------------------------------------------------------------------


def show_demo(path: str, tune: int, draws: int) -> None:
    """Sample the eight schools, and print what a user of the library would look at."""
    example = _import_example("eight_schools")
    overwrite = _is_demo(path)
    print(f"Eight schools: 4 chains × ({tune} warmup + {draws} draws), each in its own process")
    trace = example.create(path, tune=tune, draws=draws, name=_DEMO, overwrite=overwrite)
    run(example.chain, trace)
    trace.finish()
    inference_data = trace.to_inferencedata()

    import arviz

    table = arviz.summary(inference_data, var_names=["mu", "tau", "theta"])
    print(f"\n{table.to_string()}\n")
    python, picture = shlex.quote(sys.executable), Path(path).with_suffix(".png")
    if find_spec("matplotlib") is None:
        plot = f"needs Matplotlib: {python} -m pip install matplotlib, then the demo again"
    elif picture.exists() and _DEMO.encode() not in picture.read_bytes():
        plot = f"none, because the existing {picture} was not made by the demo"
    else:
        _save_trace_plot(inference_data, picture)
        plot = str(picture)
    place = json.dumps(path)
    with_zarrtrace = f"import zarrtrace; print(zarrtrace.open({place}).posterior)"
    with_xarray = f'import xarray; print(xarray.open_datatree({place}, engine="zarr"))'
    print(
        f"trace  {path}\n"
        f"plot   {plot}\n"
        f"\n"
        f"Next:\n"
        f"  {python} -m zarrtrace info {shlex.quote(path)}\n"
        f"  {python} -c {shlex.quote(with_zarrtrace)}\n"
        f"  {python} -c {shlex.quote(with_xarray)}"
    )


def _is_demo(path: str) -> bool:
    """Whether an earlier demo has left its trace there, which this one may replace.

    Raises
    ------
    TraceExistsError
        There is a trace of somebody's own.
    """
    try:
        there = open(path)
    except TraceNotFoundError:
        return False
    if there._layout.name != _DEMO:
        raise TraceExistsError(
            "there is a trace that the demo has not made",
            where=there.path,
            remedy="give the demo another place: zarrtrace demo other.zarr",
        )
    return True


def _save_trace_plot(inference_data: Any, picture: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import arviz

    names = ["mu", "tau"]
    # Neither line of ArviZ leaves room for the labels between two rows.
    with matplotlib.rc_context({"figure.constrained_layout.use": True}):
        if hasattr(arviz, "plot_trace_dist"):
            plots = arviz.plot_trace_dist(inference_data, var_names=names, backend="matplotlib")
        else:
            plots = arviz.plot_trace(inference_data, var_names=names)[0, 0].figure
        plots.savefig(picture, metadata={"Title": _DEMO})


def _import_example(name: str) -> Any:
    """A module of the examples, which lie in the package, or beside it in a checkout."""
    package = Path(__file__).parent
    folder = package / "examples"
    if not folder.is_dir():
        folder = package.parent / "examples"
    # By name on the path, not from a file: worker processes import it again.
    sys.path.insert(0, str(folder))
    return importlib.import_module(name)
