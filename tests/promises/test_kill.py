"""Promises 1, 2 and 3 under SIGKILL: the harness in a small size; `--trials 2000` for a large."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from outcomes import counts

pytestmark = [pytest.mark.once("oldest"), pytest.mark.long]

HARNESS = Path(__file__).with_name("harness_kill.py")


def test_no_acknowledged_draw_is_lost_whoever_is_killed_whenever(trials: int | None) -> None:
    trials = trials or 10
    # Its processes are forked while a thread of zarr's runs, which Python 3.12 warns of.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(HARNESS)]
    done = subprocess.run([*command, "--trials", str(trials)], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    found = counts(done.stdout)
    assert found["trials"] == trials
    # Where processes start slowly, many runs are over before they are killed; but not all.
    assert found["of them with kills"] >= trials / 5
