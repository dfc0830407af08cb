"""The names ArviZ knows for what samplers say of each draw; one table for all samplers."""

from __future__ import annotations

from collections.abc import Mapping
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
    # nutpie
    "logp": "lp",
    "depth": "tree_depth",
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


def rename_stats(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The stats under ArviZ's names, in their order; unknown ones under their own.

    NumPyro's `potential_energy` becomes `lp`, its negative. A stat keeps its own name where the
    name for ArviZ is taken by another one.
    """
    renamed: dict[str, Any] = {}
    for name, values in stats.items():
        if name == "potential_energy" and "lp" not in stats:
            renamed["lp"] = -values
            continue
        target = ARVIZ_NAMES.get(name, name)
        taken = target != name and (target in stats or target in renamed)
        renamed[name if taken else target] = values
    return renamed
