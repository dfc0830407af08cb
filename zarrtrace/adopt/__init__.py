"""Results of other libraries become traces.

`arviz_names` and `rename_stats` are for adapters: they give the statistics of a sampler the names
that ArviZ knows.
"""

from ..life.stat_names import arviz_names, rename_stats

__all__ = ["arviz_names", "rename_stats"]
