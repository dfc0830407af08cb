"""`zarrtrace demo`: sample the eight schools, and show what comes out."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import TraceExistsError, TraceNotFoundError
from ..opening import open
from ..processes import run
from .arguments import Commands

_DEMO = "eight schools of zarrtrace demo"  # the name of its model, by which it knows its trace


def add_command(commands: Commands) -> None:
    """Add `demo` to the parser."""
    demo = commands.add_parser(
        "demo", help="sample the eight schools in four processes and show the results"
    )
    demo.add_argument(
        "path", nargs="?", default="demo.zarr", help="where to keep the trace (%(default)s)"
    )
    demo.add_argument("--tune", type=int, default=1000, help="draws of warmup (%(default)s)")
    demo.add_argument("--draws", type=int, default=1000, help="draws after warmup (%(default)s)")
    demo.set_defaults(run_command=_run_command)


def _run_command(parsed: argparse.Namespace) -> int:
    show_demo(parsed.path, parsed.tune, parsed.draws)
    return 0


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
    package = Path(__file__).parent.parent
    folder = package / "examples"
    if not folder.is_dir():
        folder = package.parent / "examples"
    # By name on the path, not from a file: worker processes import it again.
    sys.path.insert(0, str(folder))
    return importlib.import_module(name)
