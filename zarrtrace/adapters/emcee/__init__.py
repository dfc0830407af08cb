"""emcee's backends on a trace: change one import line.

::

    from zarrtrace.adapters import emcee as backends  # was: from emcee import backends

    backend = backends.HDFBackend("run.zarr")
    sampler = emcee.EnsembleSampler(32, 5, log_prob, backend=backend)
    sampler.run_mcmc(initial, 10_000)

The names, arguments and results are emcee's. A file of HDF5 is a directory of traces here, one for
each name: `zarrtrace.open("run.zarr/mcmc")` reads it, even while the sampler runs. Every step that
`save_step` has stored survives `kill -9` together with the state of the random numbers, so that
`run_mcmc(None, n)` continues bit for bit.
"""

from emcee.backends import Backend

from .backend import HDFBackend, TempHDFBackend, get_test_backends, list_names
from .hdf import export_hdf, import_hdf

__all__ = [
    "Backend",
    "HDFBackend",
    "TempHDFBackend",
    "export_hdf",
    "get_test_backends",
    "import_hdf",
    "list_names",
]
