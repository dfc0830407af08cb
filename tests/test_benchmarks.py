"""The benchmarks work. Their times are judged by people, on quiet machines, and never here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.apart, pytest.mark.once("newest"), pytest.mark.long]

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_every_benchmark_runs_and_says_what_it_measured(tmp_path: Path) -> None:
    result = tmp_path / "rows.json"
    command = [sys.executable, "-W", "error", str(BENCHMARKS), "--small", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path), "--json", str(result)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(result.read_text())["rows"]
    # Those of jexplore's epochs need Python 3.13.
    assert len(rows) == (62 if importlib.util.find_spec("jexplore") else 58)
    for row in rows:
        assert isinstance(row["value"], float), row
        assert row["what"] in done.stdout
    # What does not depend on the machine.
    files = next(row for row in rows if row["what"].startswith("files of"))
    assert files["reached"]
