"""Names that a trace can store: "/" makes a group in Zarr, and samplers use it in names."""

from __future__ import annotations

from collections.abc import Iterable

from zarrtrace.errors import InvalidInputError

# The attribute of a variable that is stored under a different name from the model's.
NAME_IN_MODEL = "name_in_model"


def stored_name(name: str) -> str:
    """The name under which a trace stores the model's variable `name`."""
    return name.replace("/", ".")


def stored_names(names: Iterable[str]) -> dict[str, str]:
    """The name under which a trace stores it, for each name of the model.

    Raises
    ------
    InvalidInputError
        Two of them would be stored under the same name.
    """
    stored: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(stored_name(name), name)
        if other != name:
            raise InvalidInputError(
                f"the variables {other!r} and {name!r} would both be stored as "
                f"{stored_name(name)!r}",
                remedy="rename one of them in the model",
                variable=name,
            )
        stored[name] = stored_name(name)
    return stored


def name_attributes(name: str) -> dict[str, str]:
    """The attributes with the model's name of a variable, where its stored name differs."""
    return {} if stored_name(name) == name else {NAME_IN_MODEL: name}
