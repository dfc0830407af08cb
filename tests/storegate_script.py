"""What a user of StoreGate does, step by step, on multiml's own or on ours.

    python tests/storegate_script.py > tests/data/storegate.json

writes down what multiml returns (commit a6c3779, with zarr 2.17.1 and NumPy 1.26 on Python 3.11; of
torch it needs the name `Tensor` only). The test compares what ours returns.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BACKENDS = ("numpy", "zarr", "hybrid")
PHASES = ("train", "valid", "test")
FRACTIONS = (0.8, 0.1, 0.1)

A = np.arange(10) * 1.5
X = np.arange(20).reshape(10, 2).astype("f4")
B = np.array([[i, i * 10] for i in range(10)])
TWO = np.arange(24).reshape(12, 2)

NAMES: list[Any] = ["a", "x", ("p", "q"), ("x", "x"), ["a", "x"], ["a"]]
INDICES: list[Any] = [0, 3, (2, 5), slice(1, None, 3), [3, 1, 1, 7], np.array([0, 2])]


class Steps:
    """What each step gave, or its error."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def __call__(self, name: str, function: Callable[..., Any], *args: Any, **named: Any) -> None:
        try:
            found = plain(function(*args, **named))
        except ValueError:
            found = "ValueError"
        assert name not in self.given
        self.given[name] = found


def plain(value: Any) -> Any:
    """Values with their dtype and shape, as JSON has them."""
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), value.tolist()]
    if isinstance(value, np.generic):
        return [str(value.dtype), value.item()]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def run(gate_class: Any, backend: str, folder: str) -> dict[str, Any]:
    """All steps with one backend."""
    step = Steps()
    args = {} if backend == "numpy" else {"output_dir": folder, "mode": "w"}
    reading(step, gate_class(backend, args, data_id="d"))
    changing(step, gate_class(backend, args, data_id="e"))
    several(step, gate_class(backend, args, data_id="f"))
    if backend == "hybrid":
        both(step, gate_class(backend, args, data_id="g"))
    return step.given


def fill(gate: Any) -> None:
    gate.add_data("a", A, FRACTIONS)
    gate.add_data("x", X, FRACTIONS)
    gate.add_data(("p", "q"), B, (8, 1, 1))


def reading(step: Steps, gate: Any) -> None:
    step("read before compile", gate.get_data, "a")
    fill(gate)
    step("before compile", lambda: len(gate["train"]))
    gate.compile()
    step("metadata", gate.get_metadata)
    step("ids", gate.get_data_ids)
    for phase in PHASES:
        step(f"names {phase}", lambda phase: sorted(gate.get_var_names(phase)), phase)
        step(f"shapes {phase}", gate.get_var_shapes, ["a", "x", "p", "nope"], phase)
        step(f"len {phase}", lambda phase: len(gate[phase]), phase)
    for names in NAMES:
        for phase in ("train", "valid", "all", None):
            step(f"get {names} {phase}", gate.get_data, names, phase)
        for index in INDICES:
            step(f"get {names} {index}", gate.get_data, names, "train", index)
        for item in (slice(None), 2, slice(1, 3)):
            step(f"view {names} {item}", lambda n, i: gate["train"][n][i], names, item)
        step(f"view all {names}", lambda n: gate["all"][n][:], names)
        step(f"iterate {names}", lambda n: list(gate["test"][n]), names)
    step("in", lambda: ["a" in gate["train"], "nope" in gate["train"]])
    step("read what is not there", gate.get_data, ("a", "nope"))
    step("all with an index", gate.get_data, "a", "all", 1)
    step("no such phase", gate.add_data, "a", A, "nope")
    step("half of it", gate.add_data, "a", A, (0.5, 0.1, 0.1))
    step("too few", gate.add_data, "a", A, (1, 1, 1))
    step("too few names", gate.add_data, ("p", "q", "r"), B)


def changing(step: Steps, gate: Any) -> None:
    fill(gate)
    gate.add_data("a", [100.0, 101.0])
    step("unequal", gate.compile)
    step("not compiled any more", gate.get_data, "a")
    gate.add_data("x", np.zeros((2, 2), "f4"))
    gate.add_data(("p", "q"), np.full((2, 2), 7))
    gate.compile()
    step("appended", lambda: [gate.get_data(names) for names in ("a", "x", ("p", "q"))])
    step("appended: metadata", gate.get_metadata)
    gate.update_data("a", np.arange(10.0), index=-1)
    gate.update_data("a", [55.0], index=1)
    gate.update_data("a", [1.0, 2.0], index=(3, 5))
    gate.update_data("a", [-1.0, -2.0], index=slice(0, 4, 2))
    step("updated", gate.get_data, "a")
    gate.update_data("x", np.array([8.0, 9.0], "f4"), index=2)
    step("updated one", gate.get_data, "x")
    gate.update_data(("p", "q"), TWO[:10], phase="train")
    step("updated two", gate.get_data, ("p", "q"))
    gate.update_data("z", np.arange(12), phase="all")
    step("updated what was not there", gate.get_data, "z", "all")
    gate["train"]["a"][:] = np.ones(10)
    gate["train"]["a"][0:2] = np.array([5.0, 6.0])
    step("set", gate.get_data, "a")
    gate["all"][("p", "q")][:] = TWO
    step("set in all phases", gate.get_data, ("p", "q"), "all")
    step("wrong length", gate.update_data, "a", np.ones(3))
    gate.compile()
    gate.astype("a", "i8")
    step("astype", gate.get_data, "a")
    gate.update_data("a", np.arange(10) % 4, phase="train")
    gate.onehot("a", 4)
    step("onehot", gate.get_data, "a")
    gate.argmax("a", axis=1)
    step("argmax", gate.get_data, "a")
    gate.shuffle("all", seed=3)
    step("shuffled", lambda: [gate.get_data("x"), gate.get_data(("p", "q"), "all")])
    gate.delete_data("x", "train")
    gate.delete_data("nothing")
    del gate["train"][["p", "q"]]
    step("deleted", lambda: [sorted(gate.get_var_names(phase)) for phase in PHASES])
    gate.create_empty("e", (10, 3), "train")
    step("empty", gate.get_var_shapes, "e")
    step("empty again", gate.create_empty, "e", (10, 3), "train")
    gate.compile(reset=True)
    step("active", gate.get_data, "active", "all")
    gate.clear_data()
    step("cleared", gate.get_var_names, "train")


def several(step: Steps, gate: Any) -> None:
    gate.add_data("a", np.arange(20.0), (0.5, 0.25, 0.25), shuffle=True)
    gate.add_data("b", np.arange(60).reshape(20, 3), (0.5, 0.25, 0.25), shuffle=7)
    gate.compile()
    step("shuffled when added", lambda: [gate.get_data("a", "all"), gate.get_data("b", "all")])
    gate.add_data(["l", "m"], [[1, 2], [[1, 2], [3, 4]]], "valid")
    step("a list", gate.get_var_shapes, ["l", "m"], "valid")
    gate.set_data_id("another")
    step("another", lambda: [gate.data_id, gate.backend, gate.get_var_names()])
    if gate.backend != "hybrid":
        step("to memory", gate.to_memory, "a")


def both(step: Steps, gate: Any) -> None:
    gate.add_data(("a", "b"), np.arange(40).reshape(20, 2), (0.5, 0.25, 0.25))
    gate.compile()
    gate.to_memory(("a", "b"), "all")
    gate.set_mode("numpy")
    step("in memory", gate.get_data, ("a", "b"), "all")
    gate.to_memory("a", "all", output_var_names="c", callback=lambda name, data: (name, data * 2))
    step("in memory, computed", gate.get_data, "c", "all")
    gate.update_data("a", np.zeros(10, int))
    gate.set_mode("zarr")
    step("in storage", gate.get_data, "a")
    gate.set_mode("numpy")
    gate.to_storage("c", "all", output_var_names="d")
    gate.set_mode("zarr")
    step("in storage, renamed", gate.get_data, "d", "all")
    gate.set_mode("numpy")
    gate.to_storage("c", "valid", callback=lambda name, data: (name + "2", data + 1))
    gate.set_mode("zarr")
    step("in storage, computed", gate.get_data, "c2", "valid")


def main() -> None:
    from multiml import StoreGate

    found = {}
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            found[backend] = run(StoreGate, backend, str(Path(folder) / "data"))
    lines = [f" {json.dumps(name)}: {json.dumps(steps)}" for name, steps in found.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
