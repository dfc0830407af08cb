"""Traces for existing samplers: a module or a package for each of them.

`pymc`, `emcee`, `numpyro` and `blackjax` for samplers; `cox` for experiments, `storegate` for data
sets, `jexplore` for epochs; `xarray` for `open_datatree(engine="zarrtrace")`. They use public names
only: those in the `__all__` of `zarrtrace` and of its packages. Nothing is imported here, because
each module needs its sampler.
"""
