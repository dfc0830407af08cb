"""What a trace records: variables, each with its dtype, shape and dimensions, checked once.

Everything here is decided when a trace is created, before anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SchemaError
from ..store.dtypes import as_dtype, dtype_of_values
from ..store.small_arrays import DataArray
from .attributes import check_variable_attrs
from .coordinates import SAMPLE_DIMS, Dimensions
from .names import check_name
from .rounding import Compacted, check_rounding, rounding_attrs, rounding_label

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


# ArviZ 0.23's SUPPORTED_GROUPS, the order its users know.
GROUP_ORDER = (
    "posterior",
    "posterior_predictive",
    "predictions",
    "log_likelihood",
    "log_prior",
    "sample_stats",
    "prior",
    "prior_predictive",
    "sample_stats_prior",
    "observed_data",
    "constant_data",
    "predictions_constant_data",
    "unconstrained_posterior",
    "unconstrained_prior",
)
CONSTANT_GROUPS = ("observed_data", "constant_data", "predictions_constant_data")
# The attribute of a variable of a varying size: the name of the variable that has its lengths.
LENGTH_ATTRIBUTE = "length_variable"


@dataclass(frozen=True)
class UpTo:
    """The first dimension of a variable whose draws vary in size: any length up to a bound.

    A draw of a variable of shape `(UpTo(50), 2)` is an array of shape (k, 2) with k from 0 to 50.
    The trace stores 50 rows of it, those after the k-th filled with NaN, NaT, 0, False or "", and k
    beside it, in a variable `<name>_length`.

    Parameters
    ----------
    most : int
        The largest length, at least 1.

    See Also
    --------
    Var : The variable whose shape it belongs to.
    Trace.ragged : Read each draw in its own length.

    Notes
    -----
    On disk the padding costs about 50 bytes a draw with the default compressor, which is much where
    draws have few numbers, and next to nothing with `compressors=` a Blosc codec with zstd.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> particles = zt.Var(shape=(zt.UpTo(50), 2))
    >>> trace = zt.create("run.zarr", chains=1, draws=100, posterior={"particles": particles})
    >>> with trace.writer(0) as writer:
    ...     writer.record({"particles": [[0.1, 0.2], [0.3, 0.4]]})
    ...     writer.record({"particles": [[0.5, 0.6]]})
    >>> trace.get("particles_length")
    array([[2, 1]])
    """

    most: int

    def __repr__(self) -> str:
        return f"UpTo({self.most!r})"


@dataclass(frozen=True)
class Var:
    """One variable of a sampled group, for one draw of one chain.

    Parameters
    ----------
    shape : tuple of int, or int, optional
        Shape of one draw, without chain and draw. By default the shape of the labels of `dims`,
        and `()` without them. The first dimension may be an `UpTo`: then each draw has a length of
        its own.
    dtype : dtype, default float64
        Floats, complex64 and complex128, ints, bool, str, datetime64, timedelta64. A bool outside
        the sample_stats groups is kept as int8, 0 or 1: ArviZ 1.x cannot summarise booleans.
    dims : str or sequence of str, optional
        Names of the dimensions of one draw; `{variable}_dim_0` and so on by default.
    draws_per_chunk : int, optional
        Draws in one chunk, at least 1; chosen by size by default.
    attrs : mapping, optional
        Attributes of the variable, such as units: strings, numbers, or lists of these.
    rounded_to : float, optional
        A power of two, such as `2**-20`. Draws are rounded to multiples of it when their chunk is
        written, so that it takes less room: the bits beyond are not stored. What is not 0 does
        not become 0. Until then they are read as they were recorded.
    significant_bits : int, optional
        How many significant bits of each draw are stored, from 1 to 53, in place of `rounded_to`.

    See Also
    --------
    Trace.compact : Round the draws of a finished trace, by their Monte Carlo errors.
    UpTo : A dimension of varying length.
    create : Create a trace with such variables.

    Examples
    --------
    >>> import zarrtrace as zt
    >>> trace = zt.create(
    ...     "run.zarr",
    ...     chains=2,
    ...     draws=100,
    ...     posterior={
    ...         "mu": zt.Var(attrs={"units": "m"}),
    ...         "theta": zt.Var(dims="school"),
    ...         "covariance": zt.Var(shape=(3, 3), dtype="float32"),
    ...     },
    ...     coords={"school": ["Choate", "Deerfield"]},
    ... )
    >>> trace.posterior.theta.dims
    ('chain', 'draw', 'school')
    >>> trace.posterior.covariance.dims
    ('chain', 'draw', 'covariance_dim_0', 'covariance_dim_1')
    """

    shape: tuple[int | UpTo, ...] | int | UpTo | None = None
    dtype: DTypeLike = "float64"
    dims: str | Sequence[str] | None = None
    draws_per_chunk: int | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    rounded_to: float | None = None
    significant_bits: int | None = None

    @classmethod
    def like(cls, example: Any, dims: str | Sequence[str] | None = None) -> Var:
        """A variable with the shape and dtype of an example value: a number, a list or an array.

        Parameters
        ----------
        example : array_like
            A value of one draw.
        dims : str or sequence of str, optional
            Names of its dimensions, as for `Var`.

        Returns
        -------
        Var
            The variable.

        See Also
        --------
        create : Takes example values in place of variables.

        Examples
        --------
        >>> import numpy as np
        >>> import zarrtrace as zt
        >>> variable = zt.Var.like(np.zeros((2, 3), dtype="float32"))
        >>> variable.shape, variable.dtype
        ((2, 3), dtype('float32'))
        """
        value = np.asarray(example)
        return cls(shape=value.shape, dtype=dtype_of_values(value), dims=dims)


@dataclass(frozen=True)
class Variable:
    """A variable as it is laid out: every size known, every name checked.

    Attributes
    ----------
    declared : numpy.dtype
        What `record()` takes.
    dtype : numpy.dtype
        What is stored; int8 for a bool outside the sample_stats groups.
    rounded_to, significant_bits : float, int
        How draws are rounded when their chunk is written; 0 where they are not.
    compacted : Compacted or None
        How they were rounded after the trace was finished.
    """

    group: str
    name: str
    declared: np.dtype[Any]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    draws_per_chunk: int
    attrs: dict[str, Any]
    rounded_to: float = 0.0
    significant_bits: int = 0
    compacted: Compacted | None = None

    @property
    def is_rounded(self) -> bool:
        """Whether the draws end in zero bits, which the codec of its chunks makes use of."""
        return bool(self.rounded_to or self.significant_bits or self.compacted)

    @property
    def parts_shape(self) -> tuple[int, ...]:
        """The shape of a draw in real numbers: of a complex number both parts."""
        return (*self.shape, 2) if self.dtype.kind == "c" else self.shape

    @property
    def rounding_attrs(self) -> dict[str, Any]:
        """The attributes that say how it was rounded."""
        return rounding_attrs(self.rounded_to, self.significant_bits, self.compacted)

    @property
    def rounding_label(self) -> str:
        """How it was rounded, in a few words; "" if it was not."""
        return rounding_label(self.rounded_to, self.significant_bits, self.compacted)

    @property
    def label(self) -> str:
        """`group/name`, as messages say it."""
        return f"{self.group}/{self.name}"

    @property
    def elements(self) -> int:
        """How many elements a draw has."""
        return math.prod(self.shape)

    @property
    def is_text(self) -> bool:
        """Whether the values are variable-length strings."""
        return isinstance(self.dtype, np.dtypes.StringDType)

    @property
    def bytes_per_draw(self) -> int:
        """The bytes of a chunk of one chain, uncompressed."""
        return self.elements * self.dtype.itemsize


def stored_dtype(group: str, declared: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype on disk: as declared, but int8 for a bool that ArviZ would have to summarise."""
    if declared.kind == "b" and not group.startswith("sample_stats"):
        return np.dtype("int8")
    return declared


def define_group(
    group: str,
    definition: Mapping[Any, Any],
    dimensions: Dimensions,
    dims: Mapping[str, str | Sequence[str]],
    draws_per_chunk: int | None,
) -> list[Variable]:
    """The variables of a sampled group; `draws_per_chunk` is 0 where it is still to be chosen."""
    if not isinstance(definition, Mapping):
        raise SchemaError(
            f"group {group!r}: give a mapping of names to zarrtrace.Var or to example values, "
            f"got {type(definition).__name__}"
        )
    if not definition:
        raise SchemaError(f"group {group!r} has no variables; leave it out")
    variables = []
    for key, value in definition.items():
        name = check_name(key, f"variable in {group}")
        what = f"{group}/{name}"
        if name in SAMPLE_DIMS:
            raise SchemaError(f"{what}: {name!r} is the name of a dimension; rename the variable")
        try:
            var = value if isinstance(value, Var) else _var_like(value, dims.get(name), what)
        except SchemaError:
            raise
        except ValueError as error:
            raise SchemaError(f"{what}: the example is not an array ({error})") from None
        if var.dims is None:
            var = replace(var, dims=dims.get(name))
        if var.draws_per_chunk is None:
            var = replace(var, draws_per_chunk=draws_per_chunk)
        varying, var = _with_bound(var, what)
        variable = define_variable(group, name, var, dimensions, what)
        variables.append(replace(variable, dtype=stored_dtype(group, variable.declared)))
        if varying:
            length = length_name(name)
            if length in definition:
                raise SchemaError(
                    f"{what}: {length!r} is the variable with its lengths, which zarrtrace adds; "
                    f"rename the other variable of that name"
                )
            variables[-1].attrs[LENGTH_ATTRIBUTE] = length
            counted = Var(dtype="int64", draws_per_chunk=draws_per_chunk)
            variables.append(define_variable(group, length, counted, dimensions, what))
    return variables


def length_name(name: str) -> str:
    """The name of the variable that has the lengths of one whose draws vary in size."""
    return f"{name}_length"


def _with_bound(var: Var, what: str) -> tuple[bool, Var]:
    """Whether the draws of a variable vary in size, and the variable with the largest size."""
    shape = var.shape if isinstance(var.shape, tuple | list) else (var.shape,)
    if not (shape and isinstance(shape[0], UpTo)):
        return False, var
    most = shape[0].most
    if not isinstance(most, int | np.integer) or isinstance(most, bool) or most < 1:
        raise SchemaError(f"{what}: UpTo takes a whole number from 1, got {most!r}")
    return True, replace(var, shape=(int(most), *shape[1:]))


def _var_like(value: Any, dims: str | Sequence[str] | None, what: str) -> Var:
    """A variable by what stands for one: a type of numbers, a dtype, or an example value."""
    if value is Var:
        raise SchemaError(f"{what}: zarrtrace.Var is a class; pass zarrtrace.Var(), with brackets")
    if isinstance(value, Mapping):
        raise SchemaError(
            f"{what}: a mapping is not a value, and groups are not nested; define "
            f"{'.'.join((what.split('/')[-1], str(next(iter(value), 'name'))))!r} and so on"
        )
    if isinstance(value, type | np.dtype):
        return Var(dtype=value, dims=dims)
    return Var.like(value, dims)


def define_variable(group: str, name: str, var: Var, dimensions: Dimensions, what: str) -> Variable:
    """A variable that is stored in its declared dtype."""
    declared = as_dtype(var.dtype, what)
    shape = _shape(var.shape, what) if var.shape is not None else None
    if shape is None and var.dims is None:
        shape = ()
    shape, names = dimensions.resolve(what, name, shape, var.dims)
    length = var.draws_per_chunk
    whole = isinstance(length, int | np.integer) and not isinstance(length, bool)
    if length is not None and (not whole or length < 1):
        raise SchemaError(f"{what}: draws_per_chunk must be a whole number from 1, got {length!r}")
    rounded_to, bits = check_rounding(var.rounded_to, var.significant_bits, declared, what)
    return Variable(
        group=group,
        name=name,
        declared=declared,
        dtype=declared,
        shape=shape,
        dims=names,
        draws_per_chunk=int(length or 0),
        attrs=check_variable_attrs(var.attrs, what, declared),
        rounded_to=rounded_to,
        significant_bits=bits,
    )


def check_group(
    group: str, arrays: Mapping[str, Variable | DataArray], dimensions: Dimensions
) -> dict[str, int]:
    """The sizes of a group's dimensions, other than chain and draw, or a SchemaError.

    A variable with the name of a dimension or coordinate is refused: xarray would hide it.
    """
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        for dim, size in zip(array.dims, array.shape, strict=True):
            if dim not in SAMPLE_DIMS and sizes.setdefault(dim, size) != size:
                raise SchemaError(
                    f"{group}/{name}: dimension {dim!r} has {size} elements here but "
                    f"{sizes[dim]} elsewhere in the group; name the dimension differently"
                )
    for name in arrays:
        if name in SAMPLE_DIMS or any(
            name in names for names in (sizes, dimensions.sizes, dimensions.coords)
        ):
            raise SchemaError(
                f"{group}/{name}: {name!r} is also the name of a dimension or coordinate; "
                f"rename one of the two"
            )
    return sizes


def _shape(shape: Any, what: str) -> tuple[int, ...]:
    items = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    if any(isinstance(size, UpTo) for size in items):
        raise SchemaError(
            f"{what}: shape {shape!r} varies where it cannot; UpTo stands for the first dimension "
            f"of a variable of a sampled group: put that dimension first"
        )
    if not all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in items):
        raise SchemaError(f"{what}: shape {shape!r} is not made of whole numbers")
    return tuple(int(size) for size in items)


def ordered(groups: Iterable[str]) -> list[str]:
    """Groups in ArviZ's order; others after them, as they were defined."""
    groups = list(groups)
    known = [name for name in GROUP_ORDER if name in groups]
    return known + [name for name in groups if name not in known]
