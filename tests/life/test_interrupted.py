"""Ctrl-C anywhere in a change of a trace leaves it as before, or as after."""

from __future__ import annotations

from pathlib import Path

import pytest
from changes import CHANGES, begin, try_disturbed
from failing_calls import some_of
from interrupted import LEFT_TO_PYTHON, interrupted

import zarrtrace as zt

PACKAGE = str(Path(zt.__file__).parent)

pytestmark = LEFT_TO_PYTHON


@pytest.mark.once("oldest")
@pytest.mark.parametrize("change", CHANGES)
def test_it_is_as_before_or_as_after_and_can_be_made_again(
    tmp_path: Path, change: str, trials: int | None
) -> None:
    prepared, path = tmp_path / "prepared.zarr", tmp_path / "folder" / "run.zarr"
    prepare, act, _ = CHANGES[change]
    prepare(prepared)
    begin(prepared, path)
    with interrupted(PACKAGE) as reached:
        act(path)
    for at in some_of(reached[0], trials or 5):
        try_disturbed(change, prepared, path, interrupted(PACKAGE, at))
