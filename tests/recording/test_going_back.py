"""What stops a chain on its way back to a checkpoint leaves it there, or where it was."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_calls import failing, some_of
from interrupted import LEFT_TO_PYTHON, interrupted

import zarrtrace as zt

pytestmark = [pytest.mark.once("oldest"), *LEFT_TO_PYTHON]

PACKAGE = str(Path(zt.__file__).parent)
KEPT, BEFORE, TOTAL = 5, 11, 15
LENGTHS = {"mu": 4, "theta": 2, "whole": 1, "word": 4}


def values(start: int, stop: int, again: bool) -> dict[str, Any]:
    """Draws that say whether they were drawn before the chain went back, or again."""
    numbers = np.arange(start, stop) + 100 * again
    theta = np.repeat(numbers[:, None], 2, axis=1)
    return {"mu": numbers + 0.5, "theta": theta, "whole": numbers, "word": numbers.astype(str)}


def create(path: Path, journal: bool) -> zt.Trace:
    variables = {
        name: zt.Var(dtype=str if name == "word" else float, draws_per_chunk=length)
        for name, length in LENGTHS.items()
    }
    variables["theta"] = zt.Var(shape=2, draws_per_chunk=LENGTHS["theta"])
    trace = zt.create(path, chains=1, draws=TOTAL, posterior=variables, journal=journal)
    with trace.writer(0) as writer:
        writer.record_block(values(0, KEPT, again=False))
        writer.checkpoint({"at": KEPT})
        writer.record_block(values(KEPT, BEFORE, again=False))
    return trace


def assert_draws(trace: zt.Trace, *parts: dict[str, Any]) -> None:
    for name in LENGTHS:
        expected = [value for part in parts for value in part[name].tolist()]
        assert trace.get(name)[0].tolist() == expected, name


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("how", ["interrupt", "failing call"])
@pytest.mark.parametrize("then", ["the same writer", "another writer"])
def test_the_chain_is_at_its_checkpoint_or_where_it_was(
    tmp_path: Path, how: str, then: str, journal: bool, trials: int | None
) -> None:
    def disturbed(at: int | None) -> AbstractContextManager[Any]:
        return interrupted(PACKAGE, at) if how == "interrupt" else failing(at)

    with create(tmp_path / "whole.zarr", journal).writer(0) as writer, disturbed(None) as reached:
        writer.resume()
    count = reached[0] if how == "interrupt" else len(reached)
    for at in some_of(count, trials or 6):
        trace = create(tmp_path / f"{at}.zarr", journal)
        writer = trace.writer(0)
        try:
            with disturbed(at):
                writer.resume()
        except (KeyboardInterrupt, zt.TraceError, OSError) as caught:
            error: BaseException | None = caught.with_traceback(None)
        else:
            error = None
        found = int(trace.recorded[0])
        assert found in (KEPT, BEFORE) if error is not None else found == KEPT
        assert_draws(trace, values(0, found, again=False))
        if writer.closed:
            with pytest.raises(zt.errors.NotWritableError, match="open another one"):
                writer.resume()
        if then == "another writer" or writer.closed:
            writer._release()
            writer = trace.writer(0)
        assert writer.resume() == (KEPT, {"at": KEPT})
        kept = values(0, KEPT, again=False)
        assert_draws(trace, kept)
        for stop in range(KEPT + 1, TOTAL + 1):
            writer.record_block(values(stop - 1, stop, again=True))
            if not journal:
                writer.flush()
            assert_draws(trace, kept, values(KEPT, stop, again=True))
        writer.close()
        assert trace.check() == []
        trace.finish()
        assert_draws(trace, kept, values(KEPT, TOTAL, again=True))
