"""A call of the system that fails in a change of a trace leaves it as before, or as after."""

from __future__ import annotations

from pathlib import Path

import pytest
from changes import CHANGES, begin, try_disturbed
from failing_calls import Failure, failing, some_of


@pytest.mark.once("oldest")
@pytest.mark.parametrize("failure", ["once", "full"])
@pytest.mark.parametrize("change", CHANGES)
def test_it_is_as_before_or_as_after_and_can_be_made_again(
    tmp_path: Path, change: str, failure: Failure, trials: int | None
) -> None:
    prepared, path = tmp_path / "prepared.zarr", tmp_path / "folder" / "run.zarr"
    prepare, act, _ = CHANGES[change]
    prepare(prepared)
    begin(prepared, path)
    # Modules that it imports are read the first time only.
    act(path)
    begin(prepared, path)
    with failing(None, failure) as made:
        act(path)
    chosen = some_of(len(made), trials or 5)
    refused = [try_disturbed(change, prepared, path, failing(at, failure)) for at in chosen]
    assert any(refused)
