"""Reading returns the right value or raises an error of ours if a call of the system fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from changes import finished_with_group, recorded
from failing_calls import failing, some_of

import zarrtrace as zt


def with_table(path: Path) -> None:
    recorded(path)
    columns = {"n": zt.Var(dtype=int, draws_per_chunk=4), "word": zt.Var(dtype=str)}
    with zt.open(path, "a").table("notes", columns, flush_every=0) as table:
        for number in range(6):
            table.append(n=number, word=str(number))


def values_of_all(tree: Any) -> Any:
    return {
        f"{node.path}/{name}": array.values.tolist()
        for node in tree.subtree
        for name, array in node.variables.items()
    }


# What is there, and what is read of it.
READS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "count": (recorded, lambda path: zt.open(path).recorded.tolist()),
    "values": (recorded, lambda path: zt.open(path).get("mu").tolist()),
    "text": (recorded, lambda path: zt.open(path).posterior.word.values.tolist()),
    "tree": (recorded, lambda path: values_of_all(zt.open(path).to_datatree())),
    "finished tree": (
        finished_with_group,
        lambda path: values_of_all(zt.open(path).to_datatree(save_warmup=True)),
    ),
    "packed": (finished_with_group, lambda path: zt.open(path).pack(path.with_name("run.zip"))),
    "table": (with_table, lambda path: zt.open(path).table("notes")["word"].tolist()),
    "rows": (with_table, lambda path: zt.open(path).table("notes").to_dataset().n.values.tolist()),
    "tables": (with_table, lambda path: zt.open(path).tables),
    "runs": (recorded, lambda path: zt.folder.open(path.parent).names),
    # What cannot be read, these two may say in their own words.
    "repr": (with_table, lambda path: repr(zt.open(path)) and None),
    "damage": (with_table, lambda path: (zt.open(path).check(), None)[1]),
}


@pytest.mark.once("newest")
@pytest.mark.parametrize("what", READS)
def test_it_is_right_or_a_named_error(tmp_path: Path, what: str, trials: int | None) -> None:
    path, packed = tmp_path / "run.zarr", tmp_path / "run.zip"
    prepare, read = READS[what]
    prepare(path)
    expected = read(path)
    packed.unlink(missing_ok=True)
    with failing(None) as made:
        read(path)
    assert made
    # Some of the calls are made again when they fail.
    for at in some_of(len(made), trials or 20):
        packed.unlink(missing_ok=True)
        error: zt.TraceError | None = None
        with failing(at):
            try:
                assert read(path) == expected
            except zt.TraceError as caught:
                error = caught
        assert error is None or str(tmp_path) in str(error), repr(error)
