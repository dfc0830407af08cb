"""Whatever the bytes of a store are, looking at it ends: in what is there, or in an error of ours.

Files of traces are damaged at random: bits, cuts, other bytes, other numbers, other kinds of files.
A process with limits on its memory and time looks at each in every way there is. `--trials` says
how many; a number that fails is tried alone with `try_one(NUMBER, PATH)`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace import folder as runs
from zarrtrace.errors import TraceError
from zarrtrace.life import description

MEMORY = 2**32  # bytes more than a process has when it begins
SECONDS = 60
WORDS = (b"\xff" * 4, b"\0\0\0\x7f", b"\0\0\0\x80", bytes(4))
STAGES = ("running", "split", "finished")
KINDS = (
    "bit",
    "byte",
    "cut",
    "empty",
    "grown",
    "noise",
    "number",
    "word",
    "nested",
    "other",
    "huge",
    "fifo",
    "device",
    "directory",
    "missing",
)


def make_traces(folder: Path) -> None:
    """A trace for each stage of a life, with every codec, text, a table, data and labels."""
    import zarr

    compressors: dict[str, Any] = {
        "running": "auto",
        "split": [zarr.codecs.GzipCodec()],
        "finished": [zarr.codecs.ZstdCodec()],
    }
    for stage in STAGES:
        trace = zt.create(
            folder / stage,
            chains=2,
            tune=5,
            draws=12,
            posterior={
                "x": zt.Var(draws_per_chunk=4),
                "v": zt.Var(dims="site", dtype="int32", draws_per_chunk=3),
                "word": zt.Var(dtype=str, draws_per_chunk=5),
            },
            sample_stats={"late": zt.Var(dtype=bool, draws_per_chunk=5)},
            coords={"site": ["a", "b", "c"]},
            observed_data={"y": np.arange(4.0), "names": ["p", "q"]},
            compressors=compressors[stage],
            checksum=stage != "running",
        )
        table = trace.table("losses", {"loss": zt.Var(), "note": zt.Var(dtype=str)})
        table.append({"loss": 0.5, "note": "first"})
        table.close()
        for chain in range(2):
            with trace.writer(chain) as writer:
                for draw in range(17 if stage == "finished" else 11):
                    row = {"x": float(draw), "v": [draw] * 3, "word": f"draw {draw}"}
                    writer.record(row, {"late": draw % 2 == 0})
                    if draw == 7:
                        writer.checkpoint(
                            {"position": np.arange(3.0), "deep": [1, (2.5, {"k": 1j})]}
                        )
        if stage == "split":
            trace.split_warmup()
        if stage == "finished":
            trace.finish()


def damage(path: Path, kind: str, chance: random.Random) -> None:
    """Damage one file of a store."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content)) if content else 0
    if kind == "bit" and content:
        # Headers of codecs and counts are at the beginning.
        place = chance.choice([place, chance.randrange(min(len(content), 24))])
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "byte" and content:
        content[place] = chance.choice([0, 0x7F, 0x80, 0xFF])
    elif kind == "cut":
        del content[place:]
    elif kind == "empty":
        content.clear()
    elif kind == "grown":
        content += chance.randbytes(chance.choice([1, 4, 100]))
    elif kind == "noise":
        content[place : place + 16] = chance.randbytes(16)
    elif kind == "word":
        place -= place % 4
        content[place : place + 4] = chance.choice(
            [b"\xff" * 4, b"\0\0\0\x7f", b"\0\0\0\x80", bytes(4)]
        )
    elif kind in ("number", "nested", "other") and path.name == "zarr.json":
        content = bytearray(_other_document(bytes(content), kind, chance))
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(content)
    if kind == "huge":
        os.truncate(path, 2**40)


def _other_document(content: bytes, kind: str, chance: random.Random) -> bytes:
    """A document of which one value is another one."""
    numbers = [-1, 0, 2**31, 10**9, 2**62, 2**70, 1e300]
    others = [None, True, "", "text", [], {}, [1], {"a": 1}, *numbers]
    text = content.decode()
    if kind == "number":
        found = list(re.finditer(r"(?<![\w\"])-?\d+", text))
        match = chance.choice(found)
        return (text[: match.start()] + str(chance.choice(numbers)) + text[match.end() :]).encode()
    document = json.loads(content)
    nodes = list(_nodes(document))
    holder, key = chance.choice(nodes)
    holder[key] = json.loads("[" * 500 + "]" * 500) if kind == "nested" else chance.choice(others)
    return json.dumps(document).encode()


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _nodes(value[key])


def looks(path: Path, checked: bool) -> list[Callable[[], Any]]:
    """Every way to look at a trace; `checked` when no damage can go unnoticed in its draws."""

    def values(name: str) -> None:
        found = zt.open(path).get(name, group="posterior")
        start = 17 - found.shape[1] if checked and found.shape[1] == 12 else 5
        if checked:
            draws = range(start, start + found.shape[1])
            wanted = {"x": list(map(float, draws)), "word": [f"draw {draw}" for draw in draws]}
            assert found.tolist() == [wanted[name]] * 2

    def resume() -> None:
        zt.open(path).last_checkpoint(0)

    def table() -> None:
        rows = zt.open(path).table("losses")
        repr(rows)
        rows["note"]

    def listed() -> None:
        run = runs.Run(path.name, str(path), "r", {})
        description.run_row(run.name, run.describe())
        assert run.status
        assert isinstance(run.settings, dict)

    return [
        lambda: repr(zt.open(path)),
        lambda: description.describe_groups(zt.open(path)._now(), zt.open(path)._beside()),
        lambda: description.facts(zt.open(path)._now()),
        lambda: values("x"),
        lambda: values("word"),
        lambda: zt.open(path).to_datatree(save_warmup=True).load(),
        lambda: zt.open(path).check(),
        resume,
        table,
        listed,
    ]


def uses(path: Path) -> list[Callable[[], Any]]:
    """Ways to continue a trace, each on what those before have left."""

    def continue_run() -> None:
        with zt.open(path, "a").writer(0) as writer:
            writer.resume()
            writer.record({"x": 1.0, "v": [1] * 3, "word": "x"}, {"late": True})

    return [
        continue_run,
        lambda: zt.open(path, "a").split_warmup(3),
        lambda: zt.open(path, "a").repair(),
        lambda: zt.open(path, "a").finish(),
    ]


def try_one(number: int, folder: Path) -> str:
    """Damage one file and look; what went wrong, or nothing."""
    chance = random.Random(number)
    stage, kind = chance.choice(STAGES), chance.choice(KINDS)
    sound = folder / stage
    files = sorted(file for file in sound.rglob("*") if file.is_file())
    file = chance.choice(files).relative_to(sound)
    copy = folder / f"trial-{number}"
    # To the name it has in errors.
    shutil.copytree(sound, copy)
    damage(copy / file, kind, chance)
    # Chunks without checksums and the rows of a journal may hold other values unnoticed.
    checked = "journal" not in file.parts and stage != "running"
    ways = looks(copy, checked) + (uses(copy) if number % 4 == 0 else [])
    problems = []
    for way, act in enumerate(ways):
        try:
            act()
        except TraceError:
            pass
        except BaseException:
            said = traceback.format_exc(limit=-4)
            problems.append(f"trial {number}: {kind} of {stage}/{file}, way {way}\n{said}")
    shutil.rmtree(copy, ignore_errors=True)
    return "\n".join(problems)


def try_many(numbers: range, folder: Path, results: Any) -> None:
    """Try each number under limits, and send what came out."""
    np.zeros(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))

    def too_long(*_: Any) -> None:
        raise BaseException(f"it takes more than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    for number in numbers:
        results.send((number, None))
        signal.alarm(SECONDS)
        found = try_one(number, folder)
        signal.alarm(0)
        results.send((number, found))
    results.send((-1, ""))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_kind_ends_in_what_is_there_or_an_error_of_ours(
    tmp_path: Path, trials: int | None
) -> None:
    make_traces(tmp_path)
    context = multiprocessing.get_context("forkserver")
    problems: list[str] = []
    todo = range(trials or 12)
    while todo:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=try_many, args=(todo, tmp_path, sender))
        process.start()
        sender.close()
        number = todo.start
        try:
            while True:
                number, found = receiver.recv()
                if found:
                    problems.append(found)
                if number == -1:
                    todo = range(0)
                    break
        except EOFError:
            process.join()
            problems.append(f"trial {number}: its process ended with {process.exitcode}")
            todo = range(number + 1, todo.stop)
        process.join()
    assert not problems, "\n".join(problems)
