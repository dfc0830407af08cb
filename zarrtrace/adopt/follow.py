"""Text files of draws into a trace, as they grow: CmdStan's CSV files, and plain tables.

A chain is recorded from where the trace has it: the recorded draws are counted, and that many lines
are passed over in the file. So there is nothing else to keep between two calls,
and no line is recorded twice, wherever the one before was killed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FinishedError, InvalidInputError, TraceNotFoundError
from ..messages import counted
from ..opening import create
from ..store.failures import own_errors
from ..store.locate import Place
from ..trace import Trace
from .chain_file import ChainFile
from .columns import Columns, Values
from .input_files import Files, files_to_follow, open_files

# The group of what is known once for each chain: of its adaptation, and its random numbers.
_ADAPTATION = "constant_sample_stats"
_MOST_DRAWS = 10_000  # that are recorded at once


@own_errors
def follow(
    files: Files,
    store: Place,
    *,
    once: bool = False,
    look_every: float = 0.5,
    **trace_options: Any,
) -> Trace:
    r"""Record text files of draws while a sampler writes them, whoever started it.

    Parameters
    ----------
    files : str, path or iterable of these
        The file of each chain: CSV files of CmdStan, or tables with a line for each draw and a
        name for each column, as Cobaya, GetDist, MrBayes, BEAST and RevBayes write them. A pattern
        such as `run-*.csv` stands for the existing files, a directory for those of CmdStan.
        A file that is named may appear later.
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
        Of CmdStan: finished, if all chains have ended. Its variables are those of the model:
        columns such as `x.1.2` are an array, `z.real` and `z.imag` complex numbers, and `log_lik`
        is in the group `log_likelihood`; stats have ArviZ's names. The arguments of CmdStan are the
        attribute `sampler_settings`; the seed, the step size and the inverse metric of each chain
        are in the group `constant_sample_stats` as soon as no chain is in its warmup.

        Of tables: each column is a variable. Those that the sampler says of a draw, such as the
        number of its step, are in `sample_stats`; the steps from one draw to the next are the
        attribute `thinning`. Where Cobaya's or GetDist's integer weights say for how many steps
        the chain stayed, the draw is recorded as often. These files do not say what is warmup:
        pass `tune`, or call `trace.set_burn_in`.

    Raises
    ------
    InvalidInputError
        The files are not the chains of one run, one of them is damaged, was replaced, or does not
        have the draws that the trace has. The draws that were recorded are kept.
    TraceNotFoundError
        There is none of the files, and `once` is set.
    TraceExistsError
        The existing trace has other variables or lengths.
    FinishedError
        The existing trace was finished before its chains had ended.
    ChainBusyError
        Another process records the trace.

    See Also
    --------
    from_datatree : Make a finished trace of a result.

    Notes
    -----
    Of a file that a killed run left, every whole line is recorded. Nobody can see from the files
    whether the sampler still runs, and tables do not say that a chain has ended: `once=True` or
    Ctrl-C stops waiting, and `trace.finish()` ends the trace.

    Examples
    --------
    A sampler has written two draws of a chain so far, each with its weight:

    >>> from pathlib import Path
    >>> import zarrtrace as zt
    >>> table = Path("run.1.txt")
    >>> _ = table.write_text("# weight minuslogpost mu\n1 0.5 0.1\n2 0.6 0.2\n")
    >>> trace = zt.follow("run.*.txt", "run.zarr", once=True)
    >>> trace.get("mu")
    array([[0.1, 0.2, 0.2]])
    >>> with table.open("a") as file:
    ...     _ = file.write("1 0.7 0.3\n")
    >>> zt.follow("run.*.txt", "run.zarr", once=True).get("mu")
    array([[0.1, 0.2, 0.2, 0.3]])
    """
    paths = files_to_follow(files)
    chain_files = open_files(paths)
    while not look_at_all(chain_files):
        if once:
            raise TraceNotFoundError(
                f"there is no file with the names of its columns and its first draws among "
                f"{', '.join(map(str, paths))}",
                remedy="without once=True, follow waits for them",
            )
        time.sleep(look_every)
        chain_files = chain_files or open_files(paths)
    require_one_run(chain_files)
    if not trace_options.get("overwrite"):
        trace_options.setdefault("if_exists", "open")
    columns = _known(chain_files).columns()
    with create_trace(chain_files, columns, store, trace_options) as trace:
        recorders = [ChainRecorder(trace, i, file) for i, file in enumerate(chain_files)]
        while not all(file.has_ended for file in chain_files):
            if not record_on(trace, recorders, columns):
                if once or trace.finished:
                    break
                time.sleep(look_every)
    if not all(file.has_ended for file in chain_files):
        if trace.finished:
            raise _finished(trace)
    elif trace.draws and not trace.finished:
        trace.finish()
    return trace


def adopt_files(paths: Sequence[Path], store: Place, trace_options: Mapping[str, Any]) -> Trace:
    """A trace of the draws that are in text files, not finished.

    Chains without a draw after warmup are left out, as the attribute `adopted_chains` says.

    Raises
    ------
    InvalidInputError
        As `follow`; or no chain has a draw after warmup.
    """
    files = open_files(paths)
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
    columns = run[0].columns()
    with create_trace(run, columns, store, options) as trace:
        again = open_files([file.path for file in run])
        recorders = [ChainRecorder(trace, i, file) for i, file in enumerate(again)]
        while record_on(trace, recorders, columns):
            pass
        add_adaptation(trace, run)
    return trace


def require_one_run(files: Sequence[ChainFile]) -> None:
    """Refuse files that are not the chains of one run, as far as they are read.

    Raises
    ------
    InvalidInputError
        Two of them are of different runs, or are the same chain.
    """
    if files:
        type(files[0]).require_one_run(files)


def look_at_all(files: Sequence[ChainFile]) -> bool:
    """Look at each file; whether the names of the columns are known of one at least."""
    known = [file.look() for file in files]
    return any(known)


def create_trace(
    files: Sequence[ChainFile], columns: Columns, store: Place, trace_options: Mapping[str, Any]
) -> Trace:
    """The trace of the chains in these files, of which one at least has been looked at."""
    if trace_options.get("chains_per_chunk", 1) != 1:
        raise InvalidInputError(
            "text files are recorded by a writer for each chain",
            remedy="leave chains_per_chunk out",
        )
    if trace_options.get("thin", 1) != 1:
        raise InvalidInputError(
            "the files have the draws that the sampler has kept, and all of them are recorded",
            remedy="let the sampler thin them: give thin= to CmdStan",
        )
    file = _known(files)
    described = type(file).describe_run(files)
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
    file : ChainFile
        Where the draws come from.
    """

    def __init__(self, trace: Trace, chain: int, file: ChainFile) -> None:
        self.file = file
        self._trace = trace
        self._chain = chain
        if trace.finished:
            self._writer = None
            self._recorded = int(trace.recorded[chain])
        else:
            self._writer = trace.writer(chain)
            # The sampler that writes the file is asked by other means: no line of it is refused.
            self._writer._heeds_requests = False
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
        self._record_new(rows[there:room], first + there, columns)
        if room < len(rows):
            raise InvalidInputError(
                f"the file has more draws than the {self._trace.tune} of warmup and "
                f"{self._trace.draws} after it that the trace has room for",
                where=str(self.file.path),
                remedy="another file was appended to it, or `draws` was given and is too small",
                chain=self._chain,
            )

    def _record_new(self, rows: list[bytes], draw: int, columns: Columns) -> None:
        """Record lines that the trace does not have, those before a damaged one too."""
        if not rows:
            return
        if self._writer is None:
            raise _finished(self._trace)
        while rows:
            numbers = self.file.parse(rows[:_MOST_DRAWS], draw)
            self._writer.record_block(**columns.values(numbers))
            draw += len(numbers)
            rows = rows[len(numbers) :]

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


def add_adaptation(trace: Trace, files: Sequence[ChainFile]) -> None:
    """Keep what the comments say of each chain, if the trace does not have that yet."""
    if _ADAPTATION in trace.groups:
        return
    found = type(files[0]).adaptation(files)
    if found:
        trace.add_group(_ADAPTATION, found)


def _finished(trace: Trace) -> FinishedError:
    return FinishedError(
        f"the trace at {trace.path} was finished before its chains had ended, and takes no more "
        f"draws",
        remedy="record the files into another trace, or pass overwrite=True",
    )


def _known(files: Sequence[ChainFile]) -> ChainFile:
    """The first file the names of whose columns are known."""
    return next(file for file in files if file.header)
