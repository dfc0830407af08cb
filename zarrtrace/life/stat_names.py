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
    """The name that ArviZ has for each statistic of a sampler.

    A statistic keeps its own name where ArviZ has none, or another one has that name already.

    Parameters
    ----------
    stats : collection of str
        The names in the sampler.

    Returns
    -------
    dict of str to str
        By the sampler's name, in the same order.

    See Also
    --------
    rename_stats : Rename the values.

    Examples
    --------
    >>> from zarrtrace.adopt import arviz_names
    >>> arviz_names(["accept_prob", "num_steps", "temperature"])
    {'accept_prob': 'acceptance_rate', 'num_steps': 'n_steps', 'temperature': 'temperature'}
    """
    names: dict[str, str] = {}
    for name in stats:
        target = ARVIZ_NAMES.get(name, name)
        taken = target != name and (target in stats or target in names.values())
        names[name] = name if taken else target
    return names


def rename_stats(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The statistics of a sampler under the names that ArviZ has for them, in the same order.

    NumPyro's `potential_energy` becomes `lp`, its negative. A statistic keeps its own name where
    ArviZ has none, or another one has that name already.

    Parameters
    ----------
    stats : mapping of str to array
        Values by their names in the sampler.

    Returns
    -------
    dict of str to array
        The same values by ArviZ's names.

    See Also
    --------
    arviz_names : The names alone.

    Examples
    --------
    >>> import numpy as np
    >>> from zarrtrace.adopt import rename_stats
    >>> rename_stats({"potential_energy": np.array([1.5]), "num_steps": np.array([7])})
    {'lp': array([-1.5]), 'n_steps': array([7])}
    """
    if "potential_energy" in stats and "lp" not in stats:
        stats = dict(
            ("lp", -values) if name == "potential_energy" else (name, values)
            for name, values in stats.items()
        )
    names = arviz_names(stats)
    return {names[name]: values for name, values in stats.items()}
