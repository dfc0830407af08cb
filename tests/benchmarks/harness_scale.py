"""What very large runs cost: processor time, peak memory, and what is read and written.

    python tests/benchmarks/harness_scale.py chains [--chains 10000] [--draws 1000]
    python tests/benchmarks/harness_scale.py writers [--writers 64] [--draws 1000]
    python tests/benchmarks/harness_scale.py scalars [--scalars 100000]
    python tests/benchmarks/harness_scale.py large [--gigabytes 100]

Each step runs in a process of its own. The draws of `large` are all the same, so that they need
little room on the disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zarrtrace as zt

BLOCK = 100  # chains that are drawn together
LARGE = 100_000  # numbers of a draw of the large trace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", choices=["chains", "writers", "scalars", "large"])
    parser.add_argument("--chains", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--scalars", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, default=100, help="of draws, for `large`")
    parser.add_argument("--directory", help="where the trace is made; default the temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as folder:
        sections[given.section](Path(folder) / "run.zarr", given)


def chains(path: Path, given: argparse.Namespace) -> None:
    step("create", create_chains, path, given.chains, given.draws)
    step("record", record_blocks, path)
    life(path)


def writers(path: Path, given: argparse.Namespace) -> None:
    variables = {"x": zt.Var(shape=10)}
    zt.create(path, chains=given.writers, draws=given.draws, posterior=variables)
    step("record", record_at_once, path)
    life(path)


def large(path: Path, given: argparse.Namespace) -> None:
    draws = int(given.gigabytes * 1e9 / (4 * 8 * LARGE))
    step("create", create_large, path, draws)
    step("record", record_large, path)
    life(path)
    used = sum(file.stat().st_blocks * 512 for file in path.rglob("*"))
    print(f"{draws} draws of each of 4 chains, {used / 1e9:.2f} GB on the disk")


def scalars(path: Path, given: argparse.Namespace) -> None:
    trace = zt.create(path, chains=4, draws=200, posterior={"x": zt.Var(shape=given.scalars)})
    rng = np.random.default_rng(1)
    for chain in range(4):
        with trace.writer(chain) as writer:
            writer.record_block({"x": rng.normal(size=(100, given.scalars))})
    step("two looks of watch", look_twice, path)


sections: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "chains": chains,
    "writers": writers,
    "scalars": scalars,
    "large": large,
}


def life(path: Path) -> None:
    for name, action in (
        ("open", zt.open),
        ("recorded", recorded),
        ("split", split),
        ("finish", finish),
        ("check", check),
    ):
        step(name, action, path)


def step(name: str, action: Callable[..., object], *arguments: Any) -> None:
    """Print what an action costs in a fresh process, above its imports."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, action, arguments))
    process.start()
    theirs.close()
    seconds, megabytes, read, written = ours.recv()
    process.join()
    print(
        f"{name:20} {seconds:8.2f} s of a processor {megabytes:8.0f} MB, "
        f"{read:8.1f} MB read, {written:8.1f} MB written",
        flush=True,
    )


def measure(pipe: Any, action: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    import xarray  # noqa: F401 - what is imported counts as the start

    def spent() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    memory, began, read, written = resident("VmRSS"), spent(), moved("rchar"), moved("wchar")
    action(*arguments)
    pipe.send(
        (
            spent() - began,
            (resident("VmHWM") - memory) / 1e6,
            (moved("rchar") - read) / 1e6,
            (moved("wchar") - written) / 1e6,
        )
    )


def moved(name: str) -> int:
    """The bytes that this process has read or written, from the cache of the system too."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def create_chains(path: Path, count: int, draws: int) -> None:
    variables = {"x": zt.Var(shape=5)}
    tune = draws // 2
    zt.create(
        path, chains=count, tune=tune, draws=draws - tune, chains_per_chunk=BLOCK,
        posterior=variables,
    )  # fmt: skip


def record_blocks(path: Path) -> None:
    trace = zt.open(path, "a")
    draws = trace.tune + trace.draws
    values = np.random.default_rng(1).normal(size=(BLOCK, draws, 5))
    for block in trace.blocks:
        with trace.writer(block) as writer:
            writer.record_block({"x": values})


def create_large(path: Path, draws: int) -> None:
    variables = {"mu": 0.0, "x": zt.Var(shape=LARGE)}
    zt.create(path, chains=4, tune=draws // 4, draws=draws - draws // 4, posterior=variables)


def record_large(path: Path) -> None:
    trace = zt.open(path, "a")
    for chain in range(4):
        with trace.writer(chain) as writer:
            while writer.recorded < writer.total:
                count = min(100, writer.total - writer.recorded)
                mu, x = np.ones(count), np.ones((count, LARGE))
                writer.record_block({"mu": mu, "x": x})


def record_at_once(path: Path) -> None:
    trace = zt.open(path, "a")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=record_chain, args=(i, trace)) for i in range(trace.chains)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes) or (trace.recorded != trace.draws).any():
        sys.exit(f"recorded are {trace.recorded}")


def record_chain(index: int, trace: zt.Trace) -> None:
    values = np.random.default_rng(index).normal(size=(trace.draws, 10))
    with trace.writer(index) as writer:
        for draw in values:
            writer.record({"x": draw})


def look_twice(path: Path) -> None:
    from zarrtrace.watching.watcher import Watcher

    watcher = Watcher(zt.open(path)._hierarchy)
    watcher.look()
    watcher.look()


def recorded(path: Path) -> object:
    return zt.open(path).recorded


def split(path: Path) -> None:
    zt.open(path, "a").split_warmup()


def finish(path: Path) -> None:
    zt.open(path, "a").finish()


def check(path: Path) -> None:
    problems = zt.open(path).check()
    if problems:
        sys.exit(str(problems[:3]))


if __name__ == "__main__":
    main()
