"""The parameters of an experiment: a dictionary by attributes, completed from a JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from zarrtrace.errors import InvalidInputError


class Parameters:
    """A dictionary whose values are attributes, in any case; a missing one is None.

    Parameters
    ----------
    params : dict
        The values by their names; it is kept, not copied.

    Raises
    ------
    ValueError
        Two names differ only by case.

    See Also
    --------
    override_json : Take missing values from a file.

    Examples
    --------
    >>> from zarrtrace.adapters.cox import Parameters
    >>> args = Parameters({"lr": 0.1})
    >>> args.LR
    0.1
    >>> args.momentum is None
    True
    >>> args.epochs = 10
    >>> sorted(args)
    ['epochs', 'lr']
    """

    def __init__(self, params: dict[str, Any]) -> None:
        if len({name.lower() for name in params}) < len(params):
            raise InvalidInputError(f"names that differ only by case: {', '.join(params)}")
        super().__setattr__("params", params)

    params: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The dictionary itself.

        Returns
        -------
        dict
            It is not a copy.

        See Also
        --------
        Parameters : The attributes.

        Examples
        --------
        >>> from zarrtrace.adapters.cox import Parameters
        >>> Parameters({"lr": 0.1}).as_dict()
        {'lr': 0.1}
        """
        return self.params

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.params.get(self._key(name))

    def __setattr__(self, name: str, value: Any) -> None:
        self.params[self._key(name)] = value

    def __delattr__(self, name: str) -> None:
        del self.params[self._key(name)]

    def _key(self, name: str) -> str:
        """The name as spelled in the dictionary, or for a new entry."""
        return next((key for key in self.params if key.lower() == name.lower()), name.lower())

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._key(name) in self.params

    def __str__(self) -> str:
        return json.dumps(self.params, indent=2)

    def __repr__(self) -> str:
        return str(self)

    def __getstate__(self) -> dict[str, Any]:
        return self.params

    def __setstate__(self, params: dict[str, Any]) -> None:
        super().__setattr__("params", params)


def override_json(
    args: Parameters, json_path: str | os.PathLike[str], check_consistency: bool = False
) -> Parameters:
    """New parameters: those that are None are taken from a JSON file.

    Parameters
    ----------
    args : Parameters
        The given parameters; they are not changed.
    json_path : str or path
        A file with one JSON object.
    check_consistency : bool, default False
        Whether both must have the same names, except `config_path`.

    Returns
    -------
    zarrtrace.adapters.cox.Parameters
        Those of the file, replaced by the given ones that are not None.

    Raises
    ------
    ValueError
        With `check_consistency`: a name that only one of them has.

    See Also
    --------
    Parameters : What is completed.

    Examples
    --------
    >>> from pathlib import Path
    >>> from zarrtrace.adapters.cox import Parameters, override_json
    >>> _ = Path("config.json").write_text('{"lr": 0.1, "epochs": 10}')
    >>> override_json(Parameters({"lr": 0.5, "epochs": None}), "config.json").as_dict()
    {'lr': 0.5, 'epochs': 10}
    """
    with open(json_path, encoding="utf-8") as file:
        from_file: dict[str, Any] = json.load(file)
    given = args.as_dict()
    if check_consistency:
        unknown = [name for name in from_file if name not in given]
        if unknown:
            raise InvalidInputError(f"{json_path}: not among the parameters: {', '.join(unknown)}")
        missing = [name for name in given if name not in from_file and name != "config_path"]
        if missing:
            raise InvalidInputError(f"{json_path}: not in the file: {', '.join(missing)}")
    chosen = {name: value for name, value in given.items() if value is not None}
    nowhere = {name: None for name in given if name not in {**from_file, **chosen}}
    return Parameters({**from_file, **chosen, **nowhere})
