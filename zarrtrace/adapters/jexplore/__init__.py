"""jexplore's backend on a trace: change one import line.

::

    from zarrtrace.adapters.jexplore import DefaultBackend  # was: from jexplore.backends.default

    backend = DefaultBackend(outdir="run")
    sampler = sampling.get_sampler(backend=backend)
    epoch = sampler.run(epoch, niters=1000, nepoch=20)

The names, arguments and results are jexplore's. Its files of HDF5 are one trace here, whose chains
are the walkers and whose segments are the epochs: `zarrtrace.open("run/epochs.zarr")` reads it,
even while the sampler runs. A stored epoch survives `kill -9`.
"""

from .backend import DefaultBackend

__all__ = ["DefaultBackend"]
