"""CmdStan's CSV files into a trace, as they grow.

A chain is recorded from where the trace has it: the draws that are there are counted, and the lines
of as many draws are passed over in the file. So there is nothing else to keep between two calls,
and no line is recorded twice, wherever the one before was killed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InvalidInputError, TraceNotFoundError
from ...messages import counted
from ...opening import create
from ...store.locate import Place
from ...trace import Trace
from .columns import Columns, Values
from .csv_file import StanFile
from .run import Files, describe_run, files_to_follow, require_one_run

# The group of what is known once for each chain: of its adaptation, and its random numbers.
_ADAPTATION = "constant_sample_stats"
_ARGUMENTS = {"seed": "random.seed", "id": "id"}


def follow(
    files: Files,
    store: Place,
    *,
    once: bool = False,
    look_every: float = 0.5,
    **trace_options: Any,
) -> Trace:
    """Record the CSV files of CmdStan while it writes them, whoever started it.

    Parameters
    ----------
    files : str, path or iterable of these
        The file of each chain, or a directory or a pattern such as `run-*.csv` of those that are
        there. A file that is named may appear later.
    store : str, path, zarr.abc.store.Store or None
        Where the trace goes, as in `zarrtrace.create`. If it is there already, the draws that it
        does not have are added.
    once : bool, default False
        Whether to record what is there now and return, instead of waiting for the rest.
    look_every : float, default 0.5
        Seconds between two looks at files that do not grow.
    **trace_options
        Further arguments of `zarrtrace.create`: `dims`, `coords`, `name`, `attrs`, `overwrite` and
        others.

    Returns
    -------
    Trace
        Finished, if all chains have ended. Its variables are those of the model: columns such as
        `x.1.2` are an array, `z.real` and `z.imag` complex numbers, and `log_lik` is in the group
        `log_likelihood`; stats have ArviZ's names. The arguments of CmdStan are the attribute
        `sampler_settings`; the seed, the step size and the inverse metric of each chain are in the
        group `constant_sample_stats` as soon as no chain is in its warmup.

    Raises
    ------
    InvalidInputError
        The files are not the chains of one run, one of them is damaged, was replaced, or does not
        have the draws that the trace has. The draws that were recorded are kept.
    TraceNotFoundError
        There is none of the files, and `once` is set.
    TraceExistsError
        The trace that is there is of other variables or lengths.
    ChainBusyError
        Another process records the trace.

    Notes
    -----
    A file that a killed run left gives all its whole lines. Nobody can see from the files whether
    CmdStan still runs: where it does not, `once=True` returns, and `trace.finish()` ends the trace.
    """
    chain_files = [StanFile(path) for path in files_to_follow(files)]
    require_one_run(chain_files)
    while not look_at_all(chain_files):
        if once:
            names = ", ".join(str(file.path) for file in chain_files)
            raise TraceNotFoundError(
                f"there is no file of CmdStan with the names of its columns yet among {names}",
                remedy="without once=True, follow waits for them",
            )
        time.sleep(look_every)
    require_one_run(chain_files)
    if not trace_options.get("overwrite"):
        trace_options.setdefault("if_exists", "open")
    columns = Columns.of(_known(chain_files).header)
    with create_trace(chain_files, columns, store, trace_options) as trace:
        recorders = [ChainRecorder(trace, i, file) for i, file in enumerate(chain_files)]
        while not all(file.has_ended for file in chain_files):
            if not record_on(trace, recorders, columns):
                if once:
                    break
                time.sleep(look_every)
    if all(file.has_ended for file in chain_files) and trace.draws and not trace.finished:
        trace.finish()
    return trace


def adopt_stan_files(
    paths: Sequence[Path], store: Place, trace_options: Mapping[str, Any]
) -> Trace:
    """A trace of the draws that are in CSV files of CmdStan, not finished.

    Chains without a draw after warmup are left out, as the attribute `adopted_chains` says.

    Raises
    ------
    InvalidInputError
        As `follow`; or no chain has a draw after warmup.
    """
    files = [StanFile(path) for path in paths]
    for file in files:
        while file.read():
            pass
    require_one_run(files)
    counts = [file.rows - file.tune if file.header else 0 for file in files]
    chains = [chain for chain, count in enumerate(counts) if count > 0]
    if not chains:
        raise InvalidInputError(
            f"no chain in {', '.join(map(str, paths))} has a draw after warmup",
            remedy="zarrtrace.follow(..., once=True) makes a trace of the warmup alone",
        )
    run = [files[chain] for chain in chains]
    options = {"draws": max(counts), **trace_options}
    if len(run) < len(files):
        options["attrs"] = {"adopted_chains": chains, **options.get("attrs", {})}
    columns = Columns.of(run[0].header)
    with create_trace(run, columns, store, options) as trace:
        recorders = [ChainRecorder(trace, i, StanFile(file.path)) for i, file in enumerate(run)]
        while record_on(trace, recorders, columns):
            pass
        add_adaptation(trace, run)
    return trace


def look_at_all(files: Sequence[StanFile]) -> bool:
    """Look at each file; whether the names of the columns are known of one at least."""
    known = [file.look() for file in files]
    return any(known)


def create_trace(
    files: Sequence[StanFile], columns: Columns, store: Place, trace_options: Mapping[str, Any]
) -> Trace:
    """The trace of the chains in these files, of which one at least has been looked at."""
    if trace_options.get("chains_per_chunk", 1) != 1:
        raise InvalidInputError(
            "the files of CmdStan are recorded by a writer for each chain",
            remedy="leave chains_per_chunk out",
        )
    if trace_options.get("thin", 1) != 1:
        raise InvalidInputError(
            "the files have the draws that CmdStan has kept, and all of them are recorded",
            remedy="give thin= to CmdStan",
        )
    file = _known(files)
    described = describe_run(files)
    options: dict[str, Any] = {
        "name": described["name"],
        "tune": file.tune,
        "draws": file.draws,
        **columns.definitions(),
        **trace_options,
        "attrs": {**described["attrs"], **(trace_options.get("attrs") or {})},
    }
    return create(store, chains=len(files), **options)


def record_on(trace: Trace, recorders: Sequence[ChainRecorder], columns: Columns) -> bool:
    """Record the next draws of each chain; whether there were any."""
    grown = False
    for recorder in recorders:
        file = recorder.file
        first = file.rows
        rows = file.read()
        if rows and not first:
            require_one_run([other.file for other in recorders])
        recorder.record(rows, first, columns)
        grown = grown or bool(rows)
    files = [recorder.file for recorder in recorders]
    if all(file.has_ended or file.rows > file.tune for file in files):
        add_adaptation(trace, files)
    return grown


class ChainRecorder:
    """Records the draws of one chain that the trace does not have.

    Attributes
    ----------
    file : StanFile
        Where the draws come from.
    """

    def __init__(self, trace: Trace, chain: int, file: StanFile) -> None:
        self.file = file
        self._trace = trace
        self._chain = chain
        if trace.finished:
            self._writer = None
            self._recorded = int(trace.recorded[chain])
        else:
            self._writer = trace.writer(chain)
            self._recorded, _ = self._writer.resume()

    def record(self, rows: list[bytes], first: int, columns: Columns) -> None:
        """Record those of the lines that the trace does not have.

        Parameters
        ----------
        rows : list of bytes
            What the file had; empty at its end.
        first : int
            The number of the draw of the first one.
        columns : Columns
            What they are made of.
        """
        if not rows and first < self._recorded:
            raise InvalidInputError(
                f"the trace has {counted(self._recorded, 'draw')} of this chain, and the file "
                f"{counted(first, 'draw')}",
                where=str(self.file.path),
                remedy="record it into another trace, or pass overwrite=True",
                chain=self._chain,
            )
        there = min(max(0, self._recorded - first), len(rows))
        last = self._recorded - 1
        if there and first + there == self._recorded:
            self._require_same(columns.values(self.file.parse(rows[there - 1 : there], last)))
        room = self._trace.tune + self._trace.draws - first
        new = rows[there:room]
        if new:
            writer = self._writer or self._trace.writer(self._chain)
            writer.record_block(**columns.values(self.file.parse(new, first + there)))
        if room < len(rows):
            raise InvalidInputError(
                f"the file has more draws than the {self._trace.tune} of warmup and "
                f"{self._trace.draws} after it that the trace has room for",
                where=str(self.file.path),
                remedy="its arguments say so many; was another file appended to it?",
                chain=self._chain,
            )

    def _require_same(self, values: Mapping[str, Mapping[str, Values]]) -> None:
        """Refuse a file whose draw is not the last one that the trace has of this chain."""
        trace, chain = self._trace, self._chain
        if self._recorded > trace.burn_in:
            group = "posterior"
        elif self._recorded > trace.dropped:
            group = "warmup_posterior"
        else:
            return
        of_file = values["posterior"]
        of_trace = trace.get(list(of_file), group=group, draws=slice(-1, None), chains=chain)
        for name, value in of_file.items():
            if not np.array_equal(of_trace[name][0], value, equal_nan=True):
                raise InvalidInputError(
                    f"its draw {self._recorded - 1} differs in {name} from the one in the trace",
                    where=str(self.file.path),
                    remedy="give the files of the run that the trace is of, in the same order, or "
                    "another place for the trace",
                    chain=chain,
                    draw=self._recorded - 1,
                )


def add_adaptation(trace: Trace, files: Sequence[StanFile]) -> None:
    """Keep what the comments say of each chain, if the trace does not have that yet."""
    if _ADAPTATION in trace.groups:
        return
    found: dict[str, Any] = {}
    for name, argument in _ARGUMENTS.items():
        numbers = [file.comments.arguments.get(argument) for file in files]
        if all(isinstance(number, int) for number in numbers):
            found[name] = (("chain",), numbers)
    steps = [file.comments.step_size for file in files]
    if None not in steps:
        found["step_size"] = (("chain",), steps)
    metrics = [np.array(file.comments.inverse_metric) for file in files]
    if len({metric.shape for metric in metrics}) == 1 and metrics[0].size:
        stacked = np.stack(metrics)
        # A diagonal is one line.
        stacked = stacked[:, 0] if stacked.shape[1] == 1 else stacked
        axes = [f"inv_metric_dim_{axis}" for axis in range(stacked.ndim - 1)]
        found["inv_metric"] = (("chain", *axes), stacked)
    if found:
        trace.add_group(_ADAPTATION, found)


def _known(files: Sequence[StanFile]) -> StanFile:
    """The first file the names of whose columns are known."""
    return next(file for file in files if file.header)
