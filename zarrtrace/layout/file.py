"""The layout as it is stored: one JSON text in the attributes of `_sampling_state`."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

import google_crc32c
import numpy as np

from ..errors import DamagedTraceError, FormatVersionError, TraceError, TraceNotFoundError
from ..store.chunk_codec import ChunkCodec, is_known
from ..store.dtypes import as_dtype, dtype_name
from ..store.zarr_json import encode_document, group_document, parse_document
from .coordinates import SAMPLE_DIMS
from .layout import FORMAT_VERSION, IN_STORE, MOST_CHAINS, STATE, Ended, Layout, Lost, SampledGroup
from .names import check_group_name, check_name
from .rounding import parse_compacted, unpack_exponents
from .variables import Variable, stored_dtype

_JOURNAL_DIRECTORY = re.compile(r"/.*-[0-9a-f]{8}-journal")
LAYOUT_ATTRIBUTE = "zarrtrace"
MAKER_ATTRIBUTE = "zarrtrace_made_by"


def to_text(layout: Layout) -> str:
    """The layout as JSON text: one attribute, so that it also passes through netCDF."""
    content = {
        # Version 1 knows nothing of draws that were dropped.
        "format_version": max(layout.version, 2 if layout.dropped else 1),
        **{
            key: getattr(layout, key)
            for key in (
                "chains", "tune", "draws", "chains_per_chunk", "data_groups", "coords",
                "encodings", "attrs", "name", "created_at", "library_version", "journal",
                "flush_every",
                "durable",
                "separator",
                "identity",
                "lost",
                "thin",
                "dropped",
                "left_out",
                "closed",
                "finished",
                "paused",
                "added_at",
                "replacing",
            )
        },
        # It is out of date as soon as the trace may be recorded again.
        "ended": layout.ended._asdict() if layout.finished and layout.ended else None,
        "groups": [
            {
                "name": group.name,
                "warmup": group.warmup,
                "stored_warmup": group.stored_warmup,
                "stored_first": group.stored_first,
                "stored_left_out": group.stored_left_out,
                "moving_to": group.moving_to,
                "moved": group.moved,
                "swapping": group.swapping,
                "v2_keys": group.v2_keys,
                "moving_to_v2_keys": group.moving_to_v2_keys,
                **(
                    {"compacting": {k: v._asdict() for k, v in group.compacting.items()}}
                    if group.compacting
                    else {}
                ),
                "variables": [
                    {
                        **{k: v for k, v in vars(variable).items() if k not in _DERIVED},
                        "dtype": dtype_name(variable.declared),
                        **_rounding(variable),
                    }
                    for variable in group.variables.values()
                ],
            }
            for group in layout.groups.values()
        ],
    }  # fmt: skip
    return json.dumps(content)


_ROUNDING = ("rounded_to", "significant_bits", "compacted")
_DERIVED = ("group", "declared", "dtype", *_ROUNDING)


def _rounding(variable: Variable) -> dict[str, Any]:
    """How a variable was rounded; nothing for most of them."""
    found = {key: getattr(variable, key) for key in _ROUNDING}
    if variable.compacted:
        found["compacted"] = variable.compacted._asdict()
    return {key: value for key, value in found.items() if value}


def from_text(text: str, where: str) -> Layout:
    """The layout in a JSON text; a TraceError for any other text."""
    try:
        content = json.loads(text)
        version = content["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedTraceError(f"the layout cannot be read ({error!r})", where=where) from None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{where} has format version {version!r}; this zarrtrace reads up to {FORMAT_VERSION}; "
            f"upgrade it: pip install -U zarrtrace"
        )
    try:
        layout = Layout(
            chains=parse_count(content["chains"], 1, MOST_CHAINS),
            tune=parse_count(content["tune"], 0),
            draws=None if content["draws"] is None else parse_count(content["draws"], 0),
            chains_per_chunk=parse_count(content["chains_per_chunk"], 1),
            groups={group["name"]: _group(group) for group in content["groups"]},
            data_groups={
                check_group_name(group): tuple(check_name(name, "variable") for name in names)
                for group, names in content["data_groups"].items()
            },
            coords={
                check_name(name, "coordinate"): check_name(dim, "dimension")
                for name, dim in content["coords"].items()
            },
            encodings={
                str(name): {key: encoding[key] for key in ("data_type", "fill_value", "codecs")}
                for name, encoding in content["encodings"].items()
            },
            attrs=dict(content["attrs"]),
            name=str(content["name"]),
            created_at=str(content["created_at"]),
            library_version=str(content["library_version"]),
            journal=_journal(content["journal"]),
            flush_every=float(content["flush_every"]),
            durable=bool(content["durable"]),
            separator=parse_separator(content.get("separator", ".")),  # older layouts do not say
            # Older layouts have none; two of them at one place were not made at the same moment.
            identity=str(content.get("identity", content["created_at"])),
            lost=tuple(_lost(item) for item in content["lost"]),
            thin=parse_count(content.get("thin", 1), 1),  # older layouts keep every draw
            dropped=parse_count(content.get("dropped", 0), 0),  # none before draws could be dropped
            left_out=_blocks(content.get("left_out", [])),
            closed=bool(content["closed"]),
            finished=bool(content["finished"]),
            paused=bool(content.get("paused", False)),  # older layouts do not say
            ended=_ended(content.get("ended")),
            added_at={
                check_group_name(name): str(when)
                for name, when in content.get("added_at", {}).items()  # older layouts have none
            },
            replacing={
                check_group_name(name): _aside(name, place)
                for name, place in content.get("replacing", {}).items()
            },
            version=parse_count(version, 1),
        )
        _check(layout)
    except _MissingCodecError as error:
        stored = [one for one in layout.variables if dtype_name(one.dtype) == error.dtype]
        named = ", ".join(one.label for one in stored) or error.dtype
        raise DamagedTraceError(
            f"{named} is stored with the codec {error.codec!r}, which Zarr does not have "
            f"here; nothing is lost",
            where=where,
            remedy=f"install the package that registers {error.codec!r} with Zarr (an entry point "
            f"zarr.codecs), as where the trace was created, and open the trace again",
            group=stored[0].group if stored else None,
            variable=stored[0].name if stored else None,
        ) from None
    except (
        KeyError, TypeError, ValueError, AttributeError, RecursionError, TraceError,
    ) as error:  # fmt: skip
        raise DamagedTraceError(f"the layout cannot be read ({error!r})", where=where) from None
    return layout


def _check(layout: Layout) -> None:
    """Refuse a layout whose parts contradict each other."""
    if not layout.variables:
        raise ValueError("no variables")
    if layout.ended is not None and len(layout.ended.recorded) != layout.blocks:
        raise ValueError(f"{len(layout.ended.recorded)} writers ended, not {layout.blocks}")
    for left_out in (layout.left_out, *(g.stored_left_out for g in layout.groups.values())):
        if left_out and not len(set(left_out) & set(range(layout.blocks))) == len(left_out):
            raise ValueError(f"there are no such blocks to leave out: {left_out}")
        if len(left_out) == layout.blocks:
            raise ValueError("every chain is left out")
    for group in layout.groups.values():
        if max(group.warmup, group.stored_warmup, group.moving_to or 0) > layout.total:
            raise ValueError(f"{group.name} has more warmup than draws")
        if not group.stored_first <= min(layout.dropped, group.stored_warmup):
            raise ValueError(f"the arrays of {group.name} begin with draw {group.stored_first}")
        moving_to = group.warmup if group.moving_to is None else group.moving_to
        if layout.dropped > min(group.warmup, moving_to):
            raise ValueError(f"{layout.dropped} draws are dropped, more than {group.name} skips")
        taken = {*group.variables, *SAMPLE_DIMS}
        if len(taken) != len(group.variables) + len(SAMPLE_DIMS):
            raise ValueError(f"a variable of {group.name} has the name of a dimension")
        for name, planned in group.compacting.items():
            unpack_exponents(planned.exponents, group.variables[name].parts_shape)
        for variable in group.variables.values():
            dims = set(variable.dims)
            if not len(variable.shape) == len(variable.dims) == len(dims) or dims & taken:
                raise ValueError(
                    f"{variable.label} has shape {variable.shape} and dims {variable.dims}"
                )
    for variable in layout.variables:
        layout.encoding(variable)
    for name, encoding in layout.encodings.items():
        try_codecs(name, json.dumps(encoding))


class _MissingCodecError(ValueError):
    """Zarr does not have a codec, because the package that registers it is not installed."""

    def __init__(self, dtype: str, codec: str) -> None:
        super().__init__(f"{dtype} needs the codec {codec!r}, which Zarr does not have here")
        self.dtype = dtype
        self.codec = codec


@functools.lru_cache(maxsize=64)
def try_codecs(name: str, encoding: str) -> None:
    """Refuse codecs that do not work; the runs of a folder have the same ones."""
    dtype = _dtype(name)
    content = json.loads(encoding)
    try:
        codec = ChunkCodec(dtype, content)
        codec.decode(codec.encode(np.zeros(1, dtype)), (1,))
    except Exception as error:
        for one in _list(content["codecs"]):
            if not is_known(one["name"]):
                raise _MissingCodecError(name, one["name"]) from None
        raise ValueError(f"the codecs of {name} do not work ({error!r})") from None


@functools.lru_cache(maxsize=64)
def _dtype(name: object) -> np.dtype[Any]:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not the name of a dtype")
    return as_dtype(str if name == "str" else name, "layout")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def parse_count(value: Any, least: int, most: int = 2**62) -> int:
    """A whole number within its limits; ValueError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r} is not a count")
    return value


def _journal(content: Any) -> str:
    # Files are written and removed there: no other directory has such a name.
    if content in ("", IN_STORE):
        return str(content)
    if not isinstance(content, str) or not _JOURNAL_DIRECTORY.fullmatch(content):
        raise ValueError(f"{content!r} is not a place for journals")
    return content


def parse_separator(content: Any) -> str:
    """What stands between the numbers in the keys of chunks; ValueError for anything else."""
    if content not in (".", "/"):
        raise ValueError(f"{content!r} is not a separator")
    return str(content)


def _aside(group: str, content: Any) -> str:
    # What is there is moved and removed.
    if content and not re.fullmatch(re.escape(group) + r"\.[0-9a-f]{32}", content):
        raise ValueError(f"no place for another {group}: {content!r}")
    return str(content)


def _lost(content: Any) -> Lost:
    group, variable, block, start, stop = content
    return Lost(
        str(group),
        str(variable),
        parse_count(block, 0),
        parse_count(start, 0),
        parse_count(stop, 0),
    )


def _blocks(content: Any) -> tuple[int, ...]:
    return tuple(parse_count(block, 0) for block in _list(content))


def _ended(content: Any) -> Ended | None:
    if content is None:  # in every unfinished trace, and in finished ones of older versions
        return None
    recorded = tuple(parse_count(count, 0) for count in _list(content["recorded"]))
    return Ended(recorded, float(content["sampling_time"]))


def _group(content: Mapping[str, Any]) -> SampledGroup:
    name = check_group_name(content["name"])
    moving_to = content["moving_to"]
    return SampledGroup(
        name=name,
        variables={item["name"]: parse_variable(name, item) for item in content["variables"]},
        warmup=parse_count(content["warmup"], 0),
        stored_warmup=parse_count(content["stored_warmup"], 0),
        stored_first=parse_count(content.get("stored_first", 0), 0),
        stored_left_out=_blocks(content.get("stored_left_out", [])),
        moving_to=None if moving_to is None else parse_count(moving_to, 0),
        moved=tuple(check_name(moved, "variable") for moved in content["moved"]),
        swapping=bool(content["swapping"]),
        # Older layouts have neither of them.
        v2_keys=bool(content.get("v2_keys", False)),
        moving_to_v2_keys=bool(content.get("moving_to_v2_keys", False)),
        compacting={
            check_name(name, "variable"): parse_compacted(item)
            for name, item in content.get("compacting", {}).items()
        },
    )


def parse_variable(group: str, content: Mapping[str, Any]) -> Variable:
    """A variable of a sampled group in the content of its JSON text."""
    declared = _dtype(content["dtype"])
    return Variable(
        group=group,
        name=check_name(content["name"], "variable"),
        declared=declared,
        dtype=stored_dtype(group, declared),
        shape=tuple(parse_count(size, 0) for size in _list(content["shape"])),
        dims=tuple(check_name(dim, "dimension") for dim in _list(content["dims"])),
        draws_per_chunk=parse_count(content["draws_per_chunk"], 1),
        attrs=dict(content["attrs"]),
        rounded_to=float(content.get("rounded_to", 0.0)),
        significant_bits=parse_count(content.get("significant_bits", 0), 0, 53),
        compacted=parse_compacted(content["compacted"]) if "compacted" in content else None,
    )


def encode_layout(layout: Layout, maker: str = "") -> bytes:
    """The bytes of the zarr.json that holds a layout; the first layout says who made the trace."""
    text = to_text(layout)
    checksum = google_crc32c.value(text.encode())
    attrs = {LAYOUT_ATTRIBUTE: text, f"{LAYOUT_ATTRIBUTE}_crc32c": checksum}
    if maker:
        attrs[MAKER_ATTRIBUTE] = maker
    return encode_document(group_document(attrs))


def decode_layout(data: memoryview, where: str) -> Layout:
    """The layout in the bytes of the zarr.json that holds it.

    Raises
    ------
    TraceNotFoundError
        It is not a layout of zarrtrace.
    DamagedTraceError
        It cannot be read.
    FormatVersionError
        A newer zarrtrace wrote it.
    """
    attributes = parse_document(data, f"{where}: {STATE}/zarr.json").get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    text = attributes.get(LAYOUT_ATTRIBUTE)
    if not isinstance(text, str):
        raise TraceNotFoundError(f"{where} is not a trace of zarrtrace")
    if google_crc32c.value(text.encode()) != attributes.get(f"{LAYOUT_ATTRIBUTE}_crc32c"):
        raise DamagedTraceError(
            f"the layout in {STATE}/zarr.json is damaged: its checksum does not match",
            where=where,
            remedy="restore that file from a copy",
        )
    return from_text(text, where)
