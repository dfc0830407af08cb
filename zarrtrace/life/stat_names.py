"""The names ArviZ knows for what samplers say of each draw; one table for all samplers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

# Sampler's name → ArviZ's name. Those that are the same in both need no line.
ARVIZ_NAMES = {
    # NumPyro
    "accept_prob": "acceptance_rate",
    "num_steps": "n_steps",
    "adapt_state.step_size": "step_size",
    # BlackJAX
    "logdensity": "lp",
    "is_divergent": "diverging",
    "num_integration_steps": "n_steps",
    "num_trajectory_expansions": "tree_depth",
    # nutpie, PyMC
    "logp": "lp",
    "model_logp": "lp",
    "depth": "tree_depth",
    "tree_size": "n_steps",
    "mean_tree_accept": "acceptance_rate",
    "maxdepth_reached": "reached_max_treedepth",
    # Stan
    "lp__": "lp",
    "accept_stat__": "acceptance_rate",
    "stepsize__": "step_size",
    "treedepth__": "tree_depth",
    "n_leapfrog__": "n_steps",
    "divergent__": "diverging",
    "energy__": "energy",
    # ArviZ's own converter of NumPyro's results
    "reached_max_tree_depth": "reached_max_treedepth",
}


def arviz_names(stats: Collection[str]) -> dict[str, str]:
    """Each stat's name for ArviZ: its own where that is unknown, or another one has it already."""
    names: dict[str, str] = {}
    for name in stats:
        target = ARVIZ_NAMES.get(name, name)
        taken = target != name and (target in stats or target in names.values())
        names[name] = name if taken else target
    return names


def rename_stats(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The stats under ArviZ's names, in their order; unknown ones under their own.

    NumPyro's `potential_energy` becomes `lp`, its negative. A stat keeps its own name where the
    name for ArviZ is taken by another one.
    """
    if "potential_energy" in stats and "lp" not in stats:
        stats = dict(
            ("lp", -values) if name == "potential_energy" else (name, values)
            for name, values in stats.items()
        )
    names = arviz_names(stats)
    return {names[name]: values for name, values in stats.items()}
