"""Draw what a draw and a step cost, from the rows of a benchmark.

python tests/benchmarks --json rows.json
python tests/benchmarks/publish.py rows.json docs/pictures/speed.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

NAMES = {
    "floor": "a bare loop into arrays in RAM",
    "ours": "zarrtrace, safe from kill -9",
    "zarr": "zarr, array[...] = for 100 draws",
    "emcee": "emcee's HDFBackend",
}
COLOURS = {"floor": "#b8bec7", "ours": "#2a6fdb", "zarr": "#e0a458", "emcee": "#c8553d"}


def main() -> None:
    content = json.loads(Path(sys.argv[1]).read_text())
    plot(content["rows"], sys.argv[2])
    print(f"{content['machine']}; medians of {content['rounds']} rounds.\n")
    print("| what | measured | to reach | behind it |\n|---|---|---|---|")
    for row in content["rows"]:
        value = f"{row['value']:,.0f}" if row["value"] >= 100 else f"{row['value']:.2g}"
        sign = "≥" if row["at_least"] else "≤"
        measured = f"{value}{row['unit']}" if row["reached"] else f"**{value}**{row['unit']}"
        print(f"| {row['what']} | {measured} | {sign} {row['reach']:g} | {row['detail']} |")


def plot(rows: list[dict[str, Any]], place: str) -> None:
    plt.switch_backend("agg")
    plt.rcParams.update({"svg.hashsalt": "zarrtrace", "svg.fonttype": "none"})
    shown = [row for row in rows if row["microseconds"]]
    figure, axes = plt.subplots(
        len(shown), figsize=(8, 4.6), sharex=True, layout="constrained",
        height_ratios=[len(row["microseconds"]) for row in shown],
    )  # fmt: skip
    for axis, row in zip(axes, shown, strict=True):
        names = [name for name in reversed(NAMES) if name in row["microseconds"]]
        times = [row["microseconds"][name] for name in names]
        bars = axis.barh([NAMES[name] for name in names], times, color=[COLOURS[n] for n in names])
        axis.bar_label(bars, [f" {time:,.3g} µs" if time < 1000 else f" {time / 1000:,.3g} ms"
                              for time in times])  # fmt: skip
        axis.set_title(row["what"].removesuffix(", journal on"), loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xscale("log")
    axes[-1].set_xlim(1, 3e5)
    axes[-1].set_xlabel("microseconds for one draw or step (logarithmic)")
    figure.savefig(place, metadata={"Date": None})


if __name__ == "__main__":
    main()
