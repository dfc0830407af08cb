"""Everything zarrtrace's speed is measured by, in one command.

    python tests/benchmarks [--small] [--rounds N] [--gigabytes N] [--directory PLACE]
                            [--json FILE] [PART ...]

Each row is a ratio of two things done by turns in this run, or a figure of its own, beside what is
to be reached. Words choose rows: those in whose names one of them occurs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import adapters
import diagnostics
import epochs
import many_variables
import reading
import recording
import runs
import samples
import scale
import storing
import tables
import watching
from rich.console import Console
from rich.table import Table
from timing import Row, Run

PARTS = {
    "recording": recording,
    "storing": storing,
    "reading": reading,
    "many_variables": many_variables,
    "scale": scale,
    "tables": tables,
    "watching": watching,
    "samples": samples,
    "runs": runs,
    "diagnostics": diagnostics,
    "adapters": adapters,
    "epochs": epochs,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="only these; default all")
    parser.add_argument("--small", action="store_true", help="to see that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--gigabytes", type=float, default=1, help="of the variable that is larger than memory"
    )
    parser.add_argument("--directory", help="on the disk to measure; default the temporary one")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    given = parser.parse_args()
    console = Console()
    table = Table(title=machine())
    for heading in ("what", "measured", "reach", "", "behind it"):
        table.add_column(heading)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=given.directory, ignore_cleanup_errors=True) as directory:
        numbers = itertools.count()
        run = Run(Path(directory), given.rounds, given.small, numbers, given.gigabytes)
        for name in given.parts or PARTS:
            for row in PARTS[name].rows(run):
                rows.append(row)
                mark = "✓" if row.reached else "missed"
                figure = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:.3g}"
                figure += row.unit
                table.add_row(row.what, figure, row.wanted, mark, row.detail)
                console.print(f"{row.what}: {figure}", highlight=False, soft_wrap=True)
    console.print(table)
    if given.json:
        content = {"machine": machine(), "rounds": given.rounds, "small": given.small,
                   "rows": [{**asdict(row), "reached": row.reached} for row in rows]}  # fmt: skip
        given.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def machine() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("zarr", "numpy"))
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


if __name__ == "__main__":
    main()
