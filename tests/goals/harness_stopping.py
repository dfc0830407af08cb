"""How many effective draws a run really has where a rule stops it: AR(1) chains, and two modes.

    python tests/goals/harness_stopping.py [--runs N]

Four chains are looked at whenever they have a tenth more draws, from 200 on, and stop where R-hat
is below 1.01 and ESS above 400. For AR(1) the true effective sample size is known: with the
autocorrelation ρ it is (1 − ρ) / (1 + ρ) of the draws. In the mixture a chain moves between modes
with the weights 0.7 and 0.3 now and then: a run that is stopped before its chains have moved often
has a weight that is wrong and does not look so. The parts of a table are computed in one process
for each core, and each has a seed of its own: the table does not depend on their number.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Sequence

import numpy as np
from scipy.signal import lfilter

from zarrtrace.diagnostics.statistics import Floats, compute

CHAINS, FIRST, GROWTH = 4, 200, 1.1
RHAT, ESS = 1.01, 400.0
RULES = ("one look", "two looks", "batch means")
RHOS = (0.5, 0.9, 0.95, 0.98)
MODES = [(apart, stay) for apart in (False, True) for stay in (100, 300, 1000)]
AT_ONCE = 20  # runs of a part


def autoregressive(rho: float, draws: int, runs: int, rng: np.random.Generator) -> Floats:
    """Stationary chains: (chains, draws, runs)."""
    noise = rng.normal(size=(CHAINS, draws, runs))
    noise[:, 0] /= np.sqrt(1 - rho**2)
    chains: Floats = lfilter([1.0], [1.0, -rho], noise, axis=1)
    return chains


def two_modes(
    stay: float, draws: int, runs: int, rng: np.random.Generator, *, apart: bool
) -> Floats:
    """Chains that leave the mode at 0 after `stay` draws in the mean, for the one at 6.

    They begin in it, or, if `apart`, half of them in the other one.
    """
    leaves = rng.random((CHAINS, draws, runs))
    mode = np.zeros((CHAINS, runs), dtype=bool)
    mode[: CHAINS // 2] = apart
    values = rng.normal(size=leaves.shape)
    for draw in range(draws):
        # The second mode, of weight 0.3, is left more often.
        mode ^= leaves[:, draw] < np.where(mode, 7 / 3 / stay, 1 / stay)
        values[:, draw] += 6 * mode
    return values


def looks(draws: int) -> list[int]:
    found = [FIRST]
    while np.ceil(found[-1] * GROWTH) <= draws:
        found.append(int(np.ceil(found[-1] * GROWTH)))
    return found


def batch_means_ess(values: Floats) -> Floats:
    """ESS of the mean by batches of √n draws: cheap, and often too large."""
    chains, draws, runs = values.shape
    length = int(np.sqrt(draws))
    count = draws // length
    batches = values[:, -count * length :].reshape(chains, count, length, runs)
    between = length * batches.mean(axis=2).reshape(chains * count, runs).var(axis=0, ddof=1)
    ess: Floats = chains * draws * values.reshape(-1, runs).var(axis=0, ddof=1) / between
    return ess


def stop(values: Floats) -> dict[str, np.ndarray]:
    """The draws of a chain at which each rule stops each run; 0 where it does not."""
    runs = values.shape[2]
    stopped = {rule: np.zeros(runs, int) for rule in RULES}
    held = np.zeros(runs, dtype=bool)
    for draws in looks(values.shape[1]):
        left = np.flatnonzero(np.any([stopped[rule] == 0 for rule in RULES], axis=0))
        if not left.size:
            break
        part = values[:, :draws, left]
        agree = compute(part, ["r_hat"])["r_hat"] < RHAT
        holds, many = np.zeros((2, left.size), dtype=bool)
        if agree.any():
            sizes = compute(part[:, :, agree], ["ess_bulk", "ess_tail"])
            holds[agree] = np.minimum(sizes["ess_bulk"], sizes["ess_tail"]) > ESS
            many[agree] = batch_means_ess(part[:, :, agree]) > ESS
        met = {"one look": holds, "two looks": holds & held[left], "batch means": many}
        held[left] = holds
        for rule, is_met in met.items():
            new = left[is_met]
            stopped[rule][new] = np.where(stopped[rule][new] == 0, draws, stopped[rule][new])
    return stopped


def count_wrong(values: Floats, stopped: np.ndarray) -> int:
    """How many runs were stopped with a weight of mode 2 that is off by more than 0.1."""
    runs = np.flatnonzero(stopped)
    weights = [(values[:, : stopped[run], run] > 3).mean() for run in runs]
    return int((np.abs(np.array(weights) - 0.3) > 0.1).sum())


def share_of(rho: float) -> float:
    """The effective share of the draws of an AR(1) chain."""
    return (1 - rho) / (1 + rho)


def stop_autoregressive(seed: int, rho: float, runs: int) -> dict[str, np.ndarray]:
    # Enough for six times the effective draws that are asked for.
    most = max(int(6 * ESS / share_of(rho) / CHAINS), 2 * FIRST)
    return stop(autoregressive(rho, most, runs, np.random.default_rng([7, seed])))


def stop_two_modes(seed: int, apart: bool, stay: int, runs: int) -> dict[str, np.ndarray]:
    """For each rule, how many runs it stops, and how many with a wrong weight."""
    values = two_modes(stay, 4000, runs, np.random.default_rng([8, seed]), apart=apart)
    return {
        rule: np.array([(stopped > 0).sum(), count_wrong(values, stopped)])
        for rule, stopped in stop(values).items()
    }


def sizes_of_parts(runs: int) -> list[int]:
    return [min(AT_ONCE, runs - first) for first in range(0, runs, AT_ONCE)]


def autoregressive_rows(parts: Sequence[Sequence[dict[str, np.ndarray]]]) -> list[str]:
    lines = [
        "| chains | rule | stopped | draws a chain | true ESS, median | 5 % | least |",
        "|---|---|---|---|---|---|---|",
    ]
    for rho, of_rho in zip(RHOS, parts, strict=True):
        for rule in RULES:
            draws = np.concatenate([part[rule] for part in of_rho])
            total = len(draws)
            draws = draws[draws > 0]
            true = CHAINS * draws * share_of(rho)
            median, low, least = np.median(true), np.quantile(true, 0.05), true.min()
            lines.append(
                f"| AR(1), ρ = {rho:g} | {rule} | {len(draws)} of {total} | "
                f"{np.median(draws):.0f} | {median:.0f} | {low:.0f} | {least:.0f} |"
            )
    return lines


def two_modes_rows(parts: Sequence[Sequence[dict[str, np.ndarray]]], runs: int) -> list[str]:
    lines = [
        "| chains begin | a chain leaves mode 1 after | rule | stopped | with a wrong weight |",
        "|---|---|---|---|---|",
    ]
    for (apart, stay), of_modes in zip(MODES, parts, strict=True):
        for rule in RULES:
            stopped, wrong = np.sum([part[rule] for part in of_modes], axis=0)
            lines.append(
                f"| {'in both modes' if apart else 'in mode 1'} | {stay} draws | {rule} | "
                f"{stopped} of {runs} | {wrong} |"
            )
    return lines


def print_tables(runs: int) -> None:
    sizes = list(enumerate(sizes_of_parts(runs)))
    with multiprocessing.get_context("fork").Pool() as pool:
        # The longest first, so that all processes end together.
        correlated = [
            pool.starmap_async(stop_autoregressive, [(seed, rho, size) for seed, size in sizes])
            for rho in reversed(RHOS)
        ]
        modes = [
            pool.starmap_async(stop_two_modes, [(seed, apart, stay, size) for seed, size in sizes])
            for apart, stay in MODES
        ]
        print("\n".join(autoregressive_rows([one.get() for one in reversed(correlated)])), "\n")
        print("\n".join(two_modes_rows([one.get() for one in modes], runs)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    print_tables(parser.parse_args().runs)
