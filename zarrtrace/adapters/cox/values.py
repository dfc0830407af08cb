"""A column of cox: its kind, its dtype in a table, its values as they are stored."""

from __future__ import annotations

import json
import os
import pickle
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from zarrtrace.errors import InvalidInputError, SchemaError, TraceNotFoundError
from zarrtrace.sampling_state import decode_state, encode_state

OBJECT = "__object__"
PICKLE = "__pickle__"
PYTORCH_STATE = "__pytorch_state__"

Schema = dict[str, Any]

_PLAIN: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


def schema_from_dict(example: Mapping[str, Any], alternative: str = OBJECT) -> Schema:
    """The schema of a row: int, float, str and bool are kept, any other type is `alternative`.

    Parameters
    ----------
    example : mapping
        A value for each column.
    alternative : OBJECT, PICKLE or PYTORCH_STATE
        The kind of the columns whose value has another type.

    Returns
    -------
    dict
        A type or kind for each column.

    See Also
    --------
    Store.add_table_like_example : Add a table with this schema.

    Examples
    --------
    >>> from zarrtrace.adapters.cox import schema_from_dict
    >>> schema_from_dict({"lr": 0.1, "layers": [64, 64]})
    {'lr': <class 'float'>, 'layers': '__object__'}
    """
    return {
        name: type(value) if type(value) in _PLAIN.values() else alternative
        for name, value in example.items()
    }


def is_text(kind: Any) -> bool:
    """Whether a kind is stored as text: as itself, as JSON, or as the name of a file."""
    return kind in (str, OBJECT, PICKLE, PYTORCH_STATE)


def stored_dtype(name: str, kind: Any) -> Any:
    """The dtype of a column in its table."""
    if is_text(kind):
        return str
    if not isinstance(kind, type):
        raise SchemaError(
            f"column {name!r}: {kind!r} is not a type; use int, float, str, bool, a type of NumPy, "
            f"OBJECT, PICKLE or PYTORCH_STATE",
            variable=name,
        )
    dtype = np.dtype(kind)
    if dtype.kind == "O":
        raise SchemaError(
            f"column {name!r}: a {kind.__name__} has no dtype; use OBJECT", variable=name
        )
    return dtype


def name_of(kind: Any) -> str:
    """A kind as text, which `kind_named` reads."""
    if isinstance(kind, str):
        return kind
    return str(kind.__name__ if kind in _PLAIN.values() else np.dtype(kind).name)


def kind_named(name: str) -> Any:
    """The type or kind of this name."""
    if name in (OBJECT, PICKLE, PYTORCH_STATE):
        return name
    return _PLAIN.get(name) or np.dtype(name).type


def encode(name: str, kind: Any, value: Any, directory: Path) -> Any:
    """A value as its column stores it; an object with a file of its own is written there."""
    if kind == OBJECT:
        try:
            return encode_state(value, f"column {name!r}")
        except InvalidInputError as error:
            raise InvalidInputError(
                error.why,
                where=error.where,
                remedy="put its numbers, text and arrays in a dictionary, or make the column "
                "PICKLE",
                variable=name,
            ) from None
    if kind == PICKLE:
        return _write_file(directory, cloudpickle.dumps(value))
    if kind == PYTORCH_STATE:
        return _write_torch(directory, value)
    return kind(value)


def decode_object(text: Any) -> Any:
    """The object in a column OBJECT; any text that is not JSON is returned as it is, as in cox."""
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        return text
    try:
        return decode_state(json.loads(text))
    except ValueError:
        return text


def read_pickle(directory: Path, uid: str) -> Any:
    """The object in a column PICKLE. Reading it runs the code in it."""
    return pickle.loads(_existing(directory, uid).read_bytes())


def read_torch(directory: Path, uid: str, **options: Any) -> Any:
    """The object in a column PYTORCH_STATE; `weights_only=False` runs the code in it."""
    import torch

    return torch.load(_existing(directory, uid), **{"weights_only": True, **options})


def _write_torch(directory: Path, value: Any) -> str:
    import io

    import torch

    content = io.BytesIO()
    torch.save(value.state_dict() if hasattr(value, "state_dict") else value, content)
    return _write_file(directory, content.getvalue())


def _write_file(directory: Path, content: bytes) -> str:
    uid = str(uuid.uuid4())
    directory.mkdir(parents=True, exist_ok=True)
    # The file is complete before a row names it.
    partial = directory / f"{uid}.partial"
    partial.write_bytes(content)
    os.replace(partial, directory / uid)
    return uid


def _existing(directory: Path, uid: str) -> Path:
    file = directory / str(uid)
    # It must be a name that cannot leave the directory.
    if file.name != str(uid) or not file.is_file():
        raise TraceNotFoundError(f"there is no object {uid!r} in {directory}")
    return file
