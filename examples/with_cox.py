"""cox: experiments in stores of tables, one of them killed, all of them read together."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import numpy as np

from zarrtrace.adapters.cox import (  # was: cox.store, cox.readers, cox.utils
    CollectionReader,
    Parameters,
    Store,
)

STEPS = 300
KILLED = "--killed" in sys.argv


def settings(lr: float) -> Parameters:
    """What a training is run with."""
    return Parameters({"lr": lr, "steps": STEPS, "optimizer": "descent", "layers": [64, 64]})


def train(args: Parameters) -> None:
    """Gradient descent on a bowl, a row for each step."""
    with Store("experiments", f"lr={args.lr}") as store:
        metadata = store.add_table_like_example("metadata", args.as_dict())
        if metadata.nrows == 0:
            metadata.append_row(args.as_dict())
        log = store.add_table("log", {"step": int, "loss": float})
        weights = np.full(10, 5.0)
        for step in range(args.steps):
            weights -= args.lr * 2 * weights
            if step >= log.nrows:  # those before a kill are there
                log.append_row({"step": step, "loss": np.sum(weights**2)})
            if step == 120 and KILLED:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Train with three rates; the first training dies half way and continues."""
    shutil.rmtree("experiments", ignore_errors=True)
    first = subprocess.run([sys.executable, __file__, "--killed"])
    print(f"the training ended with {first.returncode}")
    print(f"{Store('experiments', 'lr=0.01', mode='r')['log'].nrows} steps of lr=0.01 are there")
    for lr in (0.01, 0.1, 0.99):
        train(settings(lr))

    reader = CollectionReader("experiments")
    print(reader.df("metadata"))
    last = reader.df("log").groupby("exp_id").last()
    print(last)
    print(f"best:  {last['loss'].idxmin()}")


if __name__ == "__main__":
    if KILLED:
        train(settings(lr=0.01))
    else:
        main()
