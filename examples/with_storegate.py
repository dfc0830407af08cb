"""multiml's StoreGate on Zarr v3: one import line, and a data set that outlives its process."""

import multiprocessing
import os
import shutil
import signal

import numpy as np
import xarray as xr

from zarrtrace.adapters.storegate import StoreGate  # was: from multiml import StoreGate
from zarrtrace.adapters.storegate.samples import DataSet

PLACE = "with_storegate"


def collect() -> None:
    """Events come in blocks; a kill comes in the midst of them."""
    gate = StoreGate("zarr", {"output_dir": PLACE}, data_id="events")
    rng = np.random.default_rng(6)
    for block in range(20):
        momenta = rng.normal(size=(10_000, 4)).astype("float32")
        gate.add_data(["momenta", "signal"], [momenta, momenta[:, 0] > 1], phase=(0.8, 0.1, 0.1))
        if block == 12:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Collect, look at what is there, train on random batches, keep what was predicted."""
    shutil.rmtree(PLACE, ignore_errors=True)
    process = multiprocessing.get_context("spawn").Process(target=collect)
    process.start()
    process.join()
    print(f"collecting ended with {process.exitcode}")

    gate = StoreGate("zarr", {"output_dir": PLACE}, data_id="events")
    gate.compile(show_info=True)

    # Logistic regression by random batches.
    rng = np.random.default_rng(7)
    weights = np.zeros(5)
    for _ in range(2000):
        batch = rng.integers(len(gate["train"]), size=128).tolist()
        momenta, signal_ = gate["train"][["momenta", "signal"]][batch]
        design = np.column_stack([np.ones(128), momenta])
        chance = 1 / (1 + np.exp(-design @ weights))
        weights += 0.5 * design.T @ (signal_ - chance) / 128

    # The same data set, without the gate: predict in constant memory, beside the data.
    data = DataSet(PLACE, group="events")
    data.map(lambda momenta: weights[0] + momenta @ weights[1:] > 0, "momenta", to="predicted")
    for phase in data.phases:
        right = np.mean(data[phase]["predicted"][:] == data[phase]["signal"][:])
        print(f"{phase:5} {data.sizes[phase]:6} samples, {right:.1%} right")

    print(xr.open_datatree(f"{PLACE}/events", engine="zarr")["test"].to_dataset())


if __name__ == "__main__":
    main()
