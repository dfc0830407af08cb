"""A sampler's state ↔ JSON text, bit for bit and without pickle: reading it runs no code.

Finite floats, strings, bools, None, lists and dictionaries with string keys are stored as they are.
Everything else is an object with the key `!` that names its kind; arrays and scalars of NumPy are
their bytes in base64 with their dtype. Arrays in column order keep that order: products
of them could otherwise differ in the last bit.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
import struct
from typing import Any, NamedTuple

import numpy as np

from ..errors import InvalidInputError

_KIND = "!"
_PLAIN_INTEGER = 2**63
# Kinds of NumPy dtypes whose bytes are their value.
_KINDS = "biufcmMSU"
_DTYPE = re.compile(r"[<>|=]?[biufcmMSU]\d+(\[\d*[A-Za-zμ]+\])?", re.ASCII)


def encode_state(state: Any, name: str = "state") -> str:
    """The JSON text of a state.

    Parameters
    ----------
    state
        Dictionaries, lists and tuples of numbers, strings, bytes, None, bools, NumPy arrays and
        scalars, arrays of JAX and torch (by `__array__`), ints of any size, NamedTuples and
        dataclasses, nested as deep as you like.

    Raises
    ------
    InvalidInputError
        Something in it is of another kind; the message says where.
    """
    try:
        return json.dumps(_encode(state, name), separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise InvalidInputError("nested too deeply, or it contains itself", where=name) from None


def decode_state(content: Any, like: Any = None) -> Any:
    """The state in the content of its JSON text.

    Parameters
    ----------
    content
        The result of `json.loads`.
    like : optional
        A state of the same structure: where it has a NamedTuple or a dataclass, so does the
        result. Without it their fields are returned as a dictionary.

    Raises
    ------
    ValueError
        The content is not a state.
    InvalidInputError
        It does not fit the template.
    """
    try:
        state = _decode(content)
    except (
        KeyError, TypeError, AttributeError, OverflowError, RecursionError, struct.error,
    ) as error:  # fmt: skip
        raise ValueError(f"this is not the state of a sampler ({error!r})") from None
    return _shape_like(state, like, "state")


class Checkpoint(NamedTuple):
    """A state, and where in its chain it belongs.

    Attributes
    ----------
    draws : int
        The draws it belongs to.
    state
        The sampler's state, or the content of its JSON text.
    skipped : int
        The draws after these that the sampler had given and that were not kept, as `thin` says.
    """

    draws: int
    state: Any
    skipped: int = 0


def write_checkpoint(draws: int, state: Any, skipped: int = 0) -> str:
    """The text of a checkpoint: a state and the number of draws it belongs to."""
    thinned = f'"skipped":{skipped},' if skipped else ""
    return f'{{"draw":{draws},{thinned}"state":{encode_state(state)}}}'


def read_checkpoint(text: str | None) -> Checkpoint:
    """A checkpoint with the content of its state; one of 0 draws and None where there is no text.

    Raises
    ------
    ValueError
        The text is not a checkpoint.
    """
    if not text:
        return Checkpoint(0, None)
    try:
        content = json.loads(text)
        draws, state = content["draw"], content["state"]
        skipped = content.get("skipped", 0)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"this is not a checkpoint ({error!r})") from None
    for number in (draws, skipped):
        if type(number) is not int or number < 0:
            raise ValueError(f"{number!r} is not a number of draws")
    return Checkpoint(draws, state, skipped)


def _encode(value: Any, where: str) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        if -_PLAIN_INTEGER <= value < _PLAIN_INTEGER:
            return value
        return {_KIND: "int", "hex": hex(value)}
    if kind is float:
        if math.isfinite(value):
            return value
        return {_KIND: "float", "data": _base64(struct.pack("<d", value))}
    if kind is complex:
        data = struct.pack("<dd", value.real, value.imag)
        return {_KIND: "complex", "data": _base64(data)}
    if kind in (bytes, bytearray):
        return {_KIND: "bytes", "data": _base64(bytes(value))}
    if kind is list:
        return [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if kind is dict:
        return _encode_dict(value, where)
    if isinstance(value, tuple):
        if hasattr(value, "_fields"):
            names = value._fields
            fields = {
                name: _encode(item, f"{where}.{name}")
                for name, item in zip(names, value, strict=True)
            }
            return {_KIND: "fields", "of": kind.__name__, "fields": fields}
        items = [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return {_KIND: "tuple", "items": items}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: _encode(getattr(value, field.name), f"{where}.{field.name}")
            for field in dataclasses.fields(value)
        }
        return {_KIND: "fields", "of": kind.__name__, "fields": fields}
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        return _encode_array(value, where)
    remedy = "give its numbers, strings and arrays in a dictionary"
    if isinstance(value, np.random.Generator | np.random.BitGenerator):
        name = "bit_generator.state" if isinstance(value, np.random.Generator) else "state"
        remedy = f"give its .{name}, and assign it to .{name} when you resume"
    raise InvalidInputError(
        f"a {kind.__module__}.{kind.__qualname__} cannot be stored without pickle",
        where=where,
        remedy=remedy,
    )


def _encode_dict(value: dict[Any, Any], where: str) -> Any:
    if all(type(key) is str for key in value) and _KIND not in value:
        return {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    items = [
        [_encode(key, f"a key of {where}"), _encode(item, f"{where}[{key!r}]")]
        for key, item in value.items()
    ]
    return {_KIND: "dict", "items": items}


def _encode_array(value: Any, where: str) -> Any:
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError(
            "a masked array cannot be kept bit for bit",
            where=where,
            remedy="give its .data and its .mask",
        )
    try:
        array = np.asarray(value)
    except Exception as error:
        raise InvalidInputError(
            f"{type(value).__name__} cannot be converted to an array: {error}", where=where
        ) from error
    if isinstance(array.dtype, np.dtypes.StringDType):
        items = [_encode(str(item), where) for item in array.ravel()]
        return {_KIND: "text", "shape": array.shape, "items": items}
    if array.dtype.kind not in _KINDS:
        raise InvalidInputError(
            f"an array of dtype {array.dtype} cannot be stored without pickle",
            where=where,
            remedy="convert it to numbers, or store its fields one by one",
        )
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # The bytes are in row order whatever the order of the array.
    return {
        _KIND: "scalar" if isinstance(value, np.generic) else "array",
        "dtype": little.dtype.str,
        "shape": array.shape,
        "data": _base64(little.tobytes()),
        **({"order": "F"} if array.flags.fnc else {}),
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind is None:
        return {key: _decode(item) for key, item in value.items()}
    if kind == "tuple":
        return tuple(_decode(item) for item in value["items"])
    if kind == "dict":
        return {_decode(key): _decode(item) for key, item in value["items"]}
    if kind == "int":
        return int(value["hex"], 16)
    if kind == "fields":
        fields = {str(key): _decode(item) for key, item in value["fields"].items()}
        return _Fields(str(value["of"]), fields)
    if kind in ("array", "scalar", "text"):
        return _decode_array(kind, value)
    data = base64.b64decode(value["data"], validate=True)
    if kind == "bytes":
        return data
    if kind == "float":
        return struct.unpack("<d", data)[0]
    if kind == "complex":
        return complex(*struct.unpack("<dd", data))
    raise ValueError(f"{kind!r} is not a kind of value")


def _decode_array(kind: str, value: dict[str, Any]) -> Any:
    shape = tuple(int(size) for size in value["shape"])
    if any(size < 0 for size in shape):
        raise ValueError(f"{shape} is not a shape")
    if kind == "text":
        items = [str(item) for item in value["items"]]
        return np.array(items, dtype=np.dtypes.StringDType()).reshape(shape)
    if not _DTYPE.fullmatch(value["dtype"]):
        raise ValueError(f"{value['dtype']!r} is not the dtype of a state")
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise ValueError(f"{dtype} is not the dtype of a state")
    data = base64.b64decode(value["data"], validate=True)
    order: Any = "F" if value.get("order") == "F" else "C"
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    array = array.astype(dtype.newbyteorder("="), order=order)
    return array[()] if kind == "scalar" else array


class _Fields(dict[str, Any]):
    """The fields of a NamedTuple or dataclass, before a template says which."""

    def __init__(self, of: str, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.of = of


def _shape_like(value: Any, like: Any, where: str) -> Any:
    """The value with the NamedTuples and dataclasses of a template."""
    if isinstance(value, _Fields):
        make = like if isinstance(like, type) else type(like)
        known = like is not None and (hasattr(make, "_fields") or dataclasses.is_dataclass(make))
        fields = {
            name: _shape_like(item, getattr(like, name, None) if known else None, f"{where}.{name}")
            for name, item in value.items()
        }
        if not known:
            return fields
        try:
            return make(**fields)
        except TypeError as error:
            raise InvalidInputError(
                f"like: {where} was a {value.of} with the fields {', '.join(fields)}, "
                f"and {make.__name__} takes others ({error})"
            ) from None
    if type(value) is dict:
        inner = like if isinstance(like, dict) else {}
        return {
            key: _shape_like(item, inner.get(key), f"{where}[{key!r}]")
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        patterns: Any = like if isinstance(like, list | tuple) else ()
        items = [
            _shape_like(item, patterns[i] if i < len(patterns) else None, f"{where}[{i}]")
            for i, item in enumerate(value)
        ]
        return items if type(value) is list else tuple(items)
    return value
