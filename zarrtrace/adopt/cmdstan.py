"""CmdStan's CSV files, read by cmdstanpy and laid out by ArviZ; no compiled model is needed."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, TraceNotFoundError

if TYPE_CHECKING:
    import xarray as xr


# Of the many in a file those that were chosen, and are the same for all chains.
_SETTINGS = (
    *("num_samples", "num_warmup", "thin", "algorithm", "engine", "metric", "max_depth", "delta"),
    *("stepsize", "init", "seed"),
)


def stan_files(path: Any) -> list[Path]:
    """The CSV files of CmdStan at a path, a directory or a pattern, in the order of their numbers.

    Empty where there are none; of a sequence of paths each has to be one.
    """
    if not isinstance(path, str | os.PathLike):
        return [_require_stan_file(Path(file)) for file in path]
    pattern = os.path.join(path, "*.csv") if os.path.isdir(path) else os.fspath(path)
    found = [path] if os.path.isfile(path) else glob(pattern)
    return sorted(filter(_is_stan_file, map(Path, found)), key=_by_number)


def read_stan_files(files: Sequence[Path]) -> xr.DataTree:
    """The draws and stats in CSV files of CmdStan, one for each chain, with their warmup.

    Raises
    ------
    InvalidInputError
        cmdstanpy is not there, or cannot read them: other methods than sampling, files of
        different runs, a chain that was cut off.
    """
    if find_spec("cmdstanpy") is None:
        raise InvalidInputError(f"{files[0]}: reading CmdStan's CSV needs `pip install cmdstanpy`")
    import cmdstanpy

    with warnings.catch_warnings():
        # Once a day ArviZ 0.23 announces ArviZ 1 when it is imported.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    try:
        fit: Any = cmdstanpy.from_csv([os.fspath(file) for file in files], method="sample")
    except ValueError as error:
        names = ", ".join(map(str, files))
        raise InvalidInputError(
            f"{names}: cmdstanpy reads whole CSV files of one run's chains, drawn by the method "
            f"sample, and says of these: {' '.join(str(error).split())}"
        ) from error
    result = arviz.from_cmdstanpy(fit, save_warmup=True)
    tree: xr.DataTree = result if hasattr(result, "children") else result.to_datatree()
    config = fit.metadata.cmdstan_config
    version = [str(config[f"stan_version_{part}"]) for part in ("major", "minor", "patch")]
    tree.attrs = {
        "name": config["model"].removesuffix("_model"),
        "inference_library": "CmdStan",
        "inference_library_version": ".".join(version),
        "sampling_time": max(chain["total"] for chain in fit.time),
        "sampler_settings": {name: config[name] for name in _SETTINGS if name in config},
    }
    return tree


def _is_stan_file(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as content:
        return content.read(14) == b"# stan_version"


def _require_stan_file(file: Path) -> Path:
    if not file.exists():
        raise TraceNotFoundError(f"there is nothing at {file}")
    if not _is_stan_file(file):
        raise InvalidInputError(
            f"{file} is no CSV file of CmdStan, and only those are adopted several at a time"
        )
    return file


def _by_number(file: Path) -> list[Any]:
    """With chain-2 before chain-10."""
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if part.isdigit() else part for part in parts]
