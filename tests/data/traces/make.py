"""Write one small trace of each kind with the zarrtrace that is imported, one .tar.gz each.

    PYTHONPATH=<a checkout of the version> python tests/data/traces/make.py 1 2 --to <directory>

Format version 2 was written where draws were dropped, version 1 elsewhere: version 0.1.0 wrote the
archives of these two. Those of version 3 have dropped draws. Never write them again, but add those
of each new format.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import zarrtrace as zt

CHAINS, TUNE, DRAWS, DROPPED = 2, 4, 8, 2
KINDS = ("running", "split", "finished")


def create(path: Path) -> zt.Trace:
    return zt.create(
        path,
        chains=CHAINS,
        tune=TUNE,
        draws=DRAWS,
        name="stored",
        posterior={
            "mu": zt.Var(draws_per_chunk=3),
            "theta": zt.Var(dims="school", dtype="int32", draws_per_chunk=5),
            "word": zt.Var(dtype=str, draws_per_chunk=4),
        },
        sample_stats={"diverging": zt.Var(dtype=bool), "when": zt.Var(dtype="datetime64[s]")},
        coords={"school": ["Choate", "Mt. Hermon"]},
        observed_data={"y": np.array([28.0, 12.0])},
        dims={"y": ["school"]},
        attrs={"inference_library": "stored"},
    )


def record(trace: zt.Trace, chain: int, start: int, stop: int) -> zt.ChainWriter:
    """Record some draws of a chain, with a checkpoint at draw 6 of chain 0."""
    writer = trace.writer(chain)
    writer.resume()
    for i in range(start, stop):
        number = 100 * chain + i
        values: dict[str, Any] = {
            "mu": number + 0.5, "theta": [number, -number], "word": f"{number} é" * (i % 3),
        }  # fmt: skip
        writer.record(values, {"diverging": i % 4 == 0, "when": np.datetime64(number, "s")})
        if (chain, i) == (0, 5):
            writer.checkpoint({"position": np.array([1.5, -2.5]), "step": 6})
    return writer


def add_rows(trace: zt.Trace, start: int, stop: int) -> Any:
    table = trace.table("history", {"step": int, "note": str, "scales": zt.Var(shape=2)})
    for step in range(start, stop):
        table.append(step=step, note=f"step {step}", scales=[step / 2, -step])
    table.flush()
    return table


def make(kind: str, version: int, path: Path) -> None:
    """Write a trace; a running one is left by a process that kills itself."""
    trace = create(path)
    ends = (9, 7) if kind == "running" else (TUNE + DRAWS, TUNE + DRAWS)
    held = [record(trace, chain, 0, stop) for chain, stop in enumerate(ends)]
    held.append(add_rows(trace, 0, 3))
    if version >= 2:
        trace.drop_before(DROPPED)
    if kind == "running":
        os.kill(os.getpid(), signal.SIGKILL)
    for writer in held:
        writer.close()
    if kind == "finished":
        trace.finish()
    else:
        trace.split_warmup()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("versions", type=int, nargs="*", default=[1, 2], help="of the format")
    parser.add_argument("--to", type=Path, default=Path.cwd())
    parser.add_argument("--child", nargs=3, help="the process that writes one trace")
    options = parser.parse_args()
    if options.child:
        kind, version, path = options.child
        # A claim says on which machine its writer is: a trace that was copied from another one.
        platform.node = lambda: "another-machine"
        make(kind, int(version), Path(path))
        return
    for version in options.versions:
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory, "run.zarr")
                command = [sys.executable, __file__, "--child", kind, str(version), str(path)]
                done = subprocess.run(command).returncode
                assert done == (-signal.SIGKILL if kind == "running" else 0), done
                with tarfile.open(options.to / f"format-{version}-{kind}.tar.gz", "w:gz") as file:
                    file.add(path, "run.zarr", filter=without_owner)


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
