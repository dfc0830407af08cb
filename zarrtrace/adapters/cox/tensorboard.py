"""One TensorBoard over many experiments, named by their settings."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from zarrtrace.errors import TraceError

from .readers import CollectionReader
from .store import TENSORBOARD_DIR


def has_tensorboard(dirname: str | os.PathLike[str]) -> bool:
    """Whether an experiment's directory has logged to TensorBoard.

    Parameters
    ----------
    dirname : str or path
        The directory of an experiment.

    Returns
    -------
    bool
        Whether it has a folder `tensorboard`.

    See Also
    --------
    Store.log_table_and_tb : Log to TensorBoard.

    Examples
    --------
    >>> from zarrtrace.adapters.cox import Store, has_tensorboard
    >>> Store("experiments", "first").close()
    Logging in: ...first
    >>> has_tensorboard("experiments/first")
    False
    """
    return (Path(dirname) / TENSORBOARD_DIR).is_dir()


def names_of_experiments(
    logdir: str,
    format_str: str,
    metadata_table: str = "metadata",
    filters: dict[str, str] | None = None,
) -> dict[str, str]:
    """The directory of each experiment that logged, by the name TensorBoard shows for it.

    Parameters
    ----------
    logdir : str
        The folder of the experiments.
    format_str : str
        A format of the columns of the metadata table, such as `"lr={lr}"`; `---` and the `exp_id`
        follow.
    metadata_table : str, default "metadata"
        The table whose first row has the settings of an experiment.
    filters : dict, optional
        A regular expression for a column, which the beginning of its value must match.

    Raises
    ------
    ValueError
        A column in `format_str` or `filters` is missing.
    """
    with CollectionReader(logdir) as reader:
        metadata = reader.df(metadata_table)
    filters = filters or {}
    first = {row["exp_id"]: row for row in reversed(metadata.to_dict("records"))}
    named: dict[str, str] = {}
    for exp_id in sorted(os.listdir(logdir)):
        if not has_tensorboard(os.path.join(logdir, exp_id)):
            continue
        if exp_id not in first:
            print(f"Warning: Skipping experiment {exp_id}: it has no {metadata_table}")
            continue
        values = {
            str(column): ".".join(map(str, value)) if isinstance(value, list) else value
            for column, value in first[exp_id].items()
        }
        try:
            wanted = all(re.match(filters[name], str(values[name])) for name in filters)
            name = format_str.format(**values)
        except KeyError as error:
            known = ", ".join(sorted(values))
            raise ValueError(
                f"there is no column {error} in {metadata_table}; it has {known}"
            ) from None
        if wanted:
            # TensorBoard treats these two as the ends of a name and of a path.
            named[re.sub("[:,]", "_", f"{name}---{exp_id}")] = os.path.join(logdir, exp_id)
    return named


def tensorboard_command(arguments: Sequence[str] | None = None) -> list[str]:
    """The command that `main` runs."""
    parser = argparse.ArgumentParser(
        prog="python -m zarrtrace.adapters.cox",
        description="One TensorBoard over many experiments, named by their settings.",
    )
    parser.add_argument("--logdir", required=True, help="the folder of the experiments")
    parser.add_argument("--port", type=int, default=6006, help="of TensorBoard (%(default)s)")
    parser.add_argument(
        "--metadata-table", default="metadata", help="the table with their settings (%(default)s)"
    )
    parser.add_argument(
        "--format-str", required=True, help="of the names, such as 'lr={lr}'; the exp_id follows"
    )
    parser.add_argument(
        "--filter-param", action="append", nargs=2, default=[], metavar=("COLUMN", "REGEX"),
        help="only experiments whose value matches",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    named = names_of_experiments(
        given.logdir, given.format_str, given.metadata_table, dict(given.filter_param)
    )
    specification = ",".join(f"{name}:{path}" for name, path in named.items())
    return ["tensorboard", "--logdir_spec", specification, "--port", str(given.port)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace this process by TensorBoard for a folder.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line without the name of the program; `sys.argv[1:]` by default.

    Returns
    -------
    int
        1, after a message, if TensorBoard cannot be started; it does not return otherwise.

    See Also
    --------
    has_tensorboard : Whether an experiment is shown.

    Examples
    --------
    The names of the experiments are made from their settings:

    >>> from zarrtrace.adapters.cox import Store, main
    >>> with Store("experiments", "first") as store:
    ...     store.add_table("metadata", {"lr": float}).append_row({"lr": 0.1})
    Logging in: ...first
    >>> status = main(["--logdir", "experiments", "--format-str", "{learning_rate}"])
    """
    try:
        command = tensorboard_command(arguments)
    except (TraceError, ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    if shutil.which("tensorboard") is None:
        print("tensorboard is not installed: pip install tensorboard", file=sys.stderr)
        return 1
    print(f"Running {' '.join(command)!r}", flush=True)
    # No shell is used, because names are made from values in tables.
    os.execvp("tensorboard", command)
