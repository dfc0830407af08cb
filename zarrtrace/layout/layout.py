"""The layout of one trace: its groups and arrays, where the warmup ends, what is finished.

A `Layout` is a value: it is written whole and read whole, by `Hierarchy`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..messages import chain_label, range_label
from ..store.dtypes import dtype_name
from ..store.zarr_json import V2_KEYS, array_document, chunk_key, encoding_of_rounded
from .coordinates import SAMPLE_DIMS
from .rounding import Compacted
from .variables import LENGTH_ATTRIBUTE, Variable, length_name, ordered

FORMAT_VERSION = 3
LIBRARY_VERSION = importlib.metadata.version("zarrtrace")  # takes 10 ms to find
STATE = "_sampling_state"
STAGING = f"{STATE}/split"
# Of groups given whole what will take its place, and what had it and is still read.
ASIDE = "_groups"
IN_STORE = "store"
TABLES = "tables"
# A key in the zarr.json of an array. A reader of Zarr that does not know it must refuse the array,
# and names the key when it does: users who search for that name find what to do.
UNFINISHED = "zarrtrace_unfinished"
REFUSED = {UNFINISHED: {"must_understand": True}}
MOST_CHAINS = 10**6
# The end of a chain without a declared one: no run gets there, and all numbers stay exact.
NO_END = 2**53
_CHUNK_KEY = re.compile(
    r"(?P<array>.+?)/(c(?P<sep>[./]))?(?P<block>\d+)(?(sep)(?P=sep)|\.)"
    r"(?P<number>\d+)((?(sep)(?P=sep)|\.)\d+)*"
)


@dataclass(frozen=True)
class SampledGroup:
    """A group that is recorded draw by draw.

    Attributes
    ----------
    warmup : int
        Draws before this one are warmup.
    stored_warmup : int
        The draw its own arrays begin with: 0 before the split.
    stored_first : int
        The draw the arrays of the warmup group begin with; they end before `stored_warmup`. Draws
        before it were dropped, and have no place any more.
    stored_left_out : tuple of int
        The blocks of chains that its arrays have last, after those that other readers see.
    moving_to : int or None
        While a split is under way, what `stored_warmup` will be; `stored_first` will be the number
        of draws that the trace has dropped.
    moved : tuple of str
        The variables that were cut into new chunks, and are read in the staging place only.
    swapping : bool
        Whether the staged groups are taking their place.
    v2_keys : bool
        Whether its chunks have keys such as `0.1`. Each split changes it, so that no key names
        other draws than before it: a copy made meanwhile lacks chunks, and has no wrong ones.
    moving_to_v2_keys : bool
        While a split is under way, what `v2_keys` will be.
    compacting : dict of str to Compacted
        While a split is under way, the variables whose draws it rounds, and how.
    """

    name: str
    variables: dict[str, Variable]
    warmup: int
    stored_warmup: int = 0
    stored_first: int = 0
    stored_left_out: tuple[int, ...] = ()
    moving_to: int | None = None
    moved: tuple[str, ...] = ()
    swapping: bool = False
    v2_keys: bool = False
    moving_to_v2_keys: bool = False
    compacting: dict[str, Compacted] = field(default_factory=dict)

    @property
    def next_variables(self) -> dict[str, Variable]:
        """Its variables after a split that is under way."""
        rounded = {
            name: replace(self.variables[name], compacted=planned._replace(exponents=""))
            for name, planned in self.compacting.items()
        }
        return {**self.variables, **rounded}

    @property
    def next_warmup(self) -> int:
        """The draw its own arrays will begin with after a split that is under way."""
        return self.stored_warmup if self.moving_to is None else self.moving_to

    @property
    def warmup_name(self) -> str:
        """The group its warmup goes to."""
        return f"warmup_{self.name}"

    @property
    def paths(self) -> list[str]:
        """The groups that hold its arrays: itself and, after a split, its warmup's."""
        return [self.name, *([self.warmup_name] if self.stored_first < self.stored_warmup else [])]

    def lengths_of(self, variable: Variable) -> Variable | None:
        """The variable with the lengths of one whose draws vary in size; None for all others."""
        name = length_name(variable.name)
        found = self.variables.get(name)
        if variable.attrs.get(LENGTH_ATTRIBUTE) != name or not variable.shape or found is None:
            return None
        return found if found.declared.kind in "iu" and not found.shape else None


class Lost(NamedTuple):
    """Draws of a variable that cannot be read any more, counted from the start of the chain."""

    group: str
    variable: str
    block: int
    start: int
    stop: int


class Ended(NamedTuple):
    """What the writers of a finished trace left, so that one document describes all of the trace.

    Attributes
    ----------
    recorded : tuple of int
        The draws of each block of chains, warmup included.
    sampling_time : float
        Seconds for which the writers of the slowest chain were open; 0 if there was none.
    """

    recorded: tuple[int, ...]
    sampling_time: float


# Equal only to itself, so that what follows from a layout can be kept for it.
@dataclass(frozen=True, eq=False)
class Layout:
    """What a trace consists of, and in which state it is."""

    chains: int
    tune: int
    draws: int | None  # None where the run has no declared end
    chains_per_chunk: int
    groups: dict[str, SampledGroup]
    data_groups: dict[str, tuple[str, ...]]  # group given whole → its variables, in order
    coords: dict[str, str]  # coordinate → its dimension; other dimensions are numbered from 0
    encodings: dict[str, dict[str, Any]]  # dtype name → data_type, fill_value, codecs
    attrs: dict[str, Any]
    name: str
    created_at: str
    library_version: str
    journal: str  # "store", a directory on another disk, or "" for none
    flush_every: float  # seconds, where there is no journal
    durable: bool  # whether draws survive power loss, at checkpoints and flushes
    separator: str = "."  # in the keys of chunks
    identity: str = ""  # unique: another trace at the same place has another
    lost: tuple[Lost, ...] = ()  # draws whose chunk was damaged, as repair found them
    thin: int = 1  # every `thin`-th draw that a writer is given is kept
    dropped: int = 0  # draws of each chain before this one are gone, and never read again
    left_out: tuple[int, ...] = ()  # blocks of chains that a finished trace does not show
    closed: bool = False  # takes no more draws
    finished: bool = False  # and is split, trimmed and consolidated
    paused: bool = False  # it is about to be changed or overwritten: no writer may open
    ended: Ended | None = None  # what holds while it is finished; older ones do not say it
    # Group given whole after the trace was created → when: no two of one name have the same time.
    added_at: dict[str, str] = field(default_factory=dict)
    # Group whose change is under way → where in `ASIDE` the new one is, or was; "" for nowhere.
    replacing: dict[str, str] = field(default_factory=dict)
    version: int = FORMAT_VERSION  # of the format; a trace keeps the one that it was made with

    @property
    def total(self) -> int:
        """Declared draws of a chain, warmup included; `NO_END` where there is no such number."""
        return NO_END if self.draws is None else self.tune + self.draws

    @property
    def planned_draws(self) -> int:
        """The draws in the zarr.json of an array before a split: 0 where no end is declared."""
        return 0 if self.draws is None else self.total

    @property
    def blocks(self) -> int:
        """Number of writers: blocks of `chains_per_chunk` chains."""
        return -(-self.chains // self.chains_per_chunk)

    def chains_of(self, block: int) -> range:
        """The chains of one writer."""
        first = block * self.chains_per_chunk
        return range(first, min(first + self.chains_per_chunk, self.chains))

    @property
    def kept_chains(self) -> list[int]:
        """The chains that a finished trace shows."""
        blocks = [block for block in range(self.blocks) if block not in self.left_out]
        return [chain for block in blocks for chain in self.chains_of(block)]

    @property
    def group_names(self) -> list[str]:
        """Sampled and other groups in ArviZ's order, without the warmup groups."""
        return ordered([*self.groups, *self.data_groups])

    @property
    def variables(self) -> list[Variable]:
        """Every recorded variable, group by group."""
        return [variable for group in self.groups.values() for variable in group.variables.values()]

    @property
    def most_warmup(self) -> int:
        """Draws at the start of each chain that are warmup in at least one group."""
        return max(group.warmup for group in self.groups.values())

    @property
    def sealed(self) -> bool:
        """Whether each row of a journal proves itself."""
        return self.version >= 3

    def array_starts(self, variable: Variable) -> tuple[int, ...]:
        """The draws that the arrays of a variable begin with, for its writers."""
        group = self.groups[variable.group]
        return tuple(sorted({0, group.stored_first, group.stored_warmup}))

    @property
    def arrays(self) -> dict[str, tuple[int, int, int | None, tuple[int, ...]]]:
        """For each sampled group, which draws its arrays begin with, and will after a split.

        Also which blocks of chains they have last.
        """
        return {
            name: (
                group.stored_first,
                group.stored_warmup,
                group.moving_to,
                group.stored_left_out,
            )
            for name, group in self.groups.items()
        }

    @property
    def splitting(self) -> bool:
        """Whether a split was begun and is not finished."""
        return any(group.moving_to is not None for group in self.groups.values())

    def key_form(self, group: SampledGroup) -> str:
        """How the keys of the chunks of a group are made."""
        return V2_KEYS if group.v2_keys else self.separator

    def next_key_form(self, group: SampledGroup) -> str:
        """How they will be made after a split that is under way."""
        return V2_KEYS if group.moving_to_v2_keys else self.separator

    def encoding(self, variable: Variable) -> dict[str, Any]:
        """How a variable is stored: `data_type`, `fill_value` and `codecs` of a zarr.json."""
        return self.encoding_of(variable.dtype, variable.is_rounded)

    def encoding_of(self, dtype: np.dtype[Any], is_rounded: bool) -> dict[str, Any]:
        """How the variables of a dtype are stored, those that are rounded or the others."""
        encoding = self.encodings[dtype_name(dtype)]
        return encoding_of_rounded(encoding) if is_rounded else encoding

    def chunk_shape(self, variable: Variable) -> tuple[int, ...]:
        """The shape of every chunk of a variable, the last one of a chain too."""
        return (self.chains_per_chunk, variable.draws_per_chunk, *variable.shape)

    def document(self, variable: Variable, draws: int) -> dict[str, Any]:
        """The zarr.json of a variable's array with this many draws.

        Until the trace is finished, no other reader of Zarr opens it.
        """
        chains = len(self.kept_chains) if self.finished else self.chains
        document = array_document(
            self.encoding(variable),
            (chains, draws, *variable.shape),
            self.chunk_shape(variable),
            (*SAMPLE_DIMS, *variable.dims),
            self.variable_attrs(variable),
            self.key_form(self.groups[variable.group]),
        )
        return document if self.finished else {**document, **REFUSED}

    def variable_attrs(self, variable: Variable) -> dict[str, Any]:
        """The attributes of a variable: its own, and which draws of it were lost."""
        lost = [
            f"{chain_label(chains)}: {range_label('draw', range(start, stop))}"
            for group, name, block, start, stop in self.lost
            if (group, name) == (variable.group, variable.name)
            for chains in [self.chains_of(block)]
        ]
        said = {"lost_draws": lost} if lost else {}
        return {**variable.attrs, **variable.rounding_attrs, **said}

    def is_lost(self, variable: Variable, block: int, draws: range) -> bool:
        """Whether repair has found some draws of a chunk to be lost."""
        return any(
            (lost.group, lost.variable, lost.block) == (variable.group, variable.name, block)
            and lost.start < draws.stop
            and draws.start < lost.stop
            for lost in self.lost
        )

    def group_created_at(self, group: str) -> str:
        """The attribute `created_at` of a group, by which one is told from another of its name."""
        given = str(self.attrs.get("created_at", self.created_at))
        return self.added_at.get(group, given)

    def with_group(self, group: SampledGroup) -> Layout:
        """The same with one group replaced."""
        return replace(self, groups={**self.groups, group.name: group})


@functools.lru_cache(maxsize=64)
def block_places(left_out: tuple[int, ...], blocks: int) -> tuple[int, ...]:
    """Where each block of chains lies in an array that has some of them last."""
    order = [*(block for block in range(blocks) if block not in left_out), *left_out]
    return tuple(order.index(block) for block in range(blocks))


def variable_key(path: str, variable: Variable, block: int, chunk: int, key_form: str) -> str:
    """The key of one chunk of a variable whose array lies at `path`."""
    return chunk_key(path, (block, chunk, *(0 for _ in variable.shape)), key_form)


class ChunkKey(NamedTuple):
    """The key of a chunk of a variable, and which chunk it is, with the place of its block."""

    key: str
    place: int
    number: int


def chunks_among(keys: Iterable[str]) -> dict[str, list[ChunkKey]]:
    """The chunks of variables among some keys, by the path of their array."""
    found: dict[str, list[ChunkKey]] = {}
    for key in keys:
        match = _CHUNK_KEY.fullmatch(key)
        if match is not None:
            chunk = ChunkKey(key, int(match["block"]), int(match["number"]))
            found.setdefault(match["array"], []).append(chunk)
    return found


def array_path(group: str, variable: Variable) -> str:
    """The path of a variable's array in a group, its own or the warmup's."""
    return f"{group}/{variable.name}"


def same_but_for_draws(shape: Any, document: Mapping[str, Any]) -> bool:
    """Whether a shape is that of an array's document, whatever the number of draws."""
    expected = document["shape"]
    return (
        isinstance(shape, list)
        and len(shape) == len(expected)
        and shape[:1] + shape[2:] == expected[:1] + expected[2:]
    )


def changed_keys(found: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    """The keys of a zarr.json that are not as they should be, attributes and draws aside.

    An array of an older trace may lack the key that keeps other readers from an unfinished one.
    """
    changed = [
        key
        for key, value in document.items()
        if key not in ("attributes", UNFINISHED) and found.get(key) != value
        # The draws change with the trace's life; nothing else does.
        if not (key == "shape" and same_but_for_draws(found.get(key), document))
    ]
    return [*changed, *({UNFINISHED} & (found.keys() - document.keys()))]


# Attributes -----------------------------------------------------------------------------------


def group_attrs(layout: Layout, group: str) -> dict[str, Any]:
    """Attributes of a group as ArviZ writes them, without those that only sampling adds."""
    attrs = {
        "created_at": layout.created_at,
        "creation_library": "zarrtrace",
        "creation_library_version": layout.library_version,
        "creation_library_language": "Python",
        **layout.attrs,
    }
    if group in layout.added_at:
        attrs["created_at"] = layout.added_at[group]
    sampled = layout.groups.get(group.removeprefix("warmup_"))
    if sampled is not None:
        attrs["sample_dims"] = list(SAMPLE_DIMS)
        attrs["tuning_steps"] = sampled.warmup
        if layout.thin > 1:
            attrs["thin"] = layout.thin
        if layout.dropped:
            attrs["draws_dropped"] = layout.dropped
        if sampled.name == "posterior":
            attrs["sampled_variables"] = list(sampled.variables)
    return attrs


def coordinates_attr(coords: Mapping[str, str]) -> dict[str, str]:
    """The attribute by which xarray finds labels that do not have the name of their dimension."""
    others = [name for name, dim in coords.items() if name != dim and " " not in name]
    return {"coordinates": " ".join(others)} if others else {}


def root_attrs(layout: Layout) -> dict[str, Any]:
    """Attributes of the root: the model's name, and who wrote it."""
    return {
        **({"name": layout.name} if layout.name else {}),
        "created_at": layout.created_at,
        "creation_library": "zarrtrace",
        "creation_library_version": layout.library_version,
        "creation_library_language": "Python",
    }
