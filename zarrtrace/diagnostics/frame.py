"""The table of a summary in the form of the installed ArviZ: columns, intervals, rounding."""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..errors import InvalidInputError
from .statistics import ARVIZ_0_SUMMARY, ARVIZ_1, Floats, Rules, arviz_is_1, has_min_ss

if TYPE_CHECKING:
    import pandas as pd

Interval = Literal["hdi", "eti"]
Rounding = int | str | None

_ENDS = ("lower", "upper")
_DIAGNOSTICS_1 = ["ess_bulk", "ess_tail", "r_hat", "mcse_mean", "mcse_sd"]
_DIAGNOSTICS_0 = ["mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]
_OF_MEDIAN_1 = ["ess_median", "ess_tail", "r_hat", "mcse_median"]
_OF_MEDIAN_0 = ["mcse_median", "ess_median", "ess_tail", "r_hat"]
_OF_MONTE_CARLO_1 = ["mcse_mean", "ess_mean", "min_ss"]
_KINDS = ("all", "stats", "diagnostics", "all_median", "stats_median", "diagnostics_median")
KINDS = (*_KINDS, "mc_diagnostics", "moments")


class Style(NamedTuple):
    """How a table looks, and the definitions that its numbers follow.

    Attributes
    ----------
    columns : dict of str to str
        The statistic of each column.
    """

    columns: dict[str, str]
    prob: float
    rules: Rules
    round_to: Rounding

    def with_nested(self) -> Style:
        """The same with nested R-hat, if R-hat is in the table."""
        nested = {"r_hat_nested": "r_hat_nested"} if "r_hat" in self.columns else {}
        return self._replace(columns={**self.columns, **nested})


def choose_style(
    kind: str, prob: float | None, interval: Interval | None, round_to: Rounding
) -> Style:
    """The style of the installed ArviZ; that of ArviZ 1.x without any."""
    kinds = [one for one in KINDS if one != "mc_diagnostics" or has_min_ss()]
    if kind not in kinds:
        what = "the installed ArviZ does not have it" if kind in KINDS else "there is no such kind"
        raise InvalidInputError(f"kind={kind!r}: {what}", remedy=f"give one of {', '.join(kinds)}")
    if interval not in (None, "hdi", "eti"):
        raise InvalidInputError(f"ci_kind is 'hdi' or 'eti', got {interval!r}")
    default_prob = _setting("stats.ci_prob", 0.89)
    prob = default_prob if prob is None else prob
    if not 0 < prob <= 1:
        raise InvalidInputError(f"ci_prob is above 0 and at most 1, got {prob!r}")
    is_1, of_median = arviz_is_1(), kind.endswith("_median")
    if of_median:
        interval = "eti"
    elif interval is None:
        interval = _setting("stats.ci_kind", "eti") if is_1 else "hdi"
    columns: dict[str, str] = {}
    if kind == "mc_diagnostics":
        columns |= {name: name for name in _OF_MONTE_CARLO_1}
    if kind == "moments":
        columns |= _columns_of_moments(prob)
    what = kind.removesuffix("_median")
    if what in ("all", "stats"):
        names = ["median", "mad"] if of_median else ["mean", "sd"]
        columns |= {name: name for name in names}
        labels = _interval_labels(is_1, str(interval), prob)
        columns |= {label: f"{interval}_{end}" for label, end in zip(labels, _ENDS, strict=True)}
    if what in ("all", "diagnostics"):
        of_mean = _DIAGNOSTICS_1 if is_1 else _DIAGNOSTICS_0
        names = (_OF_MEDIAN_1 if is_1 else _OF_MEDIAN_0) if of_median else of_mean
        columns |= {name: name for name in names}
    if not is_1:
        return Style(columns, prob, ARVIZ_0_SUMMARY, "auto" if round_to is None else round_to)
    tails = sorted((default_prob, 1 - default_prob))
    return Style(columns, prob, ARVIZ_1._replace(tails=(tails[0], tails[1])), round_to)


def _interval_labels(is_1: bool, interval: str, prob: float) -> list[str]:
    if is_1:
        return [f"{interval}{int(prob * 100)}_{end}" for end in ("lb", "ub")]
    outside = 1 - prob
    return [f"{interval}_{100 * side:g}%" for side in (outside / 2, 1 - outside / 2)]


def explain(style: Style) -> str:
    """A sentence on columns that are not as ArviZ would compute them; "" if all are."""
    if "mcse_mean_batch" not in style.columns:
        return ""
    return (
        "mcse_mean_batch is by batch means, r_hat_split has no ranks, and the ranks of the kll_ "
        "quantiles are wrong by kll_rank_error of all draws at most (99 % confidence)"
    )


def _columns_of_moments(prob: float) -> dict[str, str]:
    """Names that say how a number was found, where ArviZ would find it in another way."""
    low, high = (f"kll_{100 * side:.6g}%" for side in ((1 - prob) / 2, (1 + prob) / 2))
    quantiles = {low: "kll_lower", "kll_50%": "kll_median", high: "kll_upper"}
    names = ["kll_rank_error", "mcse_mean_batch", "r_hat_split"]
    return {"mean": "mean", "sd": "sd", **quantiles, **{name: name for name in names}}


def _setting(name: str, default: Any) -> Any:
    """What the user has set in the `rcParams` of ArviZ."""
    try:
        module = "arviz_base" if arviz_is_1() else "arviz"
        with warnings.catch_warnings():
            # ArviZ 0.23 announces ArviZ 1 once a day when it is imported.
            warnings.simplefilter("ignore", FutureWarning)
            return importlib.import_module(module).rcParams[name]
    except (ImportError, KeyError):
        return default


def build_frame(
    labels: Sequence[str], statistics: Mapping[str, Floats], style: Style
) -> pd.DataFrame:
    """The table: a row for each scalar, rounded as ArviZ rounds it."""
    frame = _round(labels, statistics, style)
    if explanation := explain(style):
        frame.attrs["explanation"] = explanation
    return frame


def _round(labels: Sequence[str], statistics: Mapping[str, Floats], style: Style) -> pd.DataFrame:
    import pandas as pd

    numbers = {column: statistics[name] for column, name in style.columns.items()}
    frame = pd.DataFrame(numbers, index=list(labels))
    if style.round_to in ("none", "None"):
        return frame
    if not arviz_is_1():
        decimals: Any = style.round_to
        if decimals == "auto":
            decimals = {column: _decimals(column) for column in style.columns}
        return frame.round(decimals)
    precision = style.round_to
    if precision in ("auto", None):
        precision = _setting("stats.round_to", "2g")
    if style.round_to != "auto":
        return frame.map(lambda number: round_number(number, precision))
    return _with_formats(frame, _formats(numbers, list(labels), precision))


def _decimals(column: str) -> int:
    if column.startswith("r_hat"):
        return 2
    return 0 if column in ("ess_bulk", "ess_tail") else 3


def round_number(number: float, precision: Rounding) -> float:
    """A number with some decimals, or with some digits for "2g"."""
    if not math.isfinite(number) or precision in (None, "none", "None"):
        return number
    if isinstance(precision, int):
        return round(number, precision)
    if not precision.endswith("g"):
        return number
    if number == 0:
        return 0
    return round(number, int(precision[:-1]) - math.floor(math.log10(abs(number))) - 1)


def _with_formats(frame: pd.DataFrame, formats: dict[str, dict[str, str]]) -> pd.DataFrame:
    """A frame that shows some digits and keeps all, where ArviZ has such frames."""
    try:
        kind = importlib.import_module("arviz_stats.summary").SummaryDataFrame
    except (ImportError, AttributeError):
        return frame
    formatted: pd.DataFrame = kind(frame, fmt_map=formats)
    return formatted


def _formats(
    numbers: Mapping[str, Floats], labels: list[str], precision: Rounding
) -> dict[str, dict[str, str]]:
    """The text of each number: ESS in whole draws, an estimate as precise as its error."""
    texts: dict[str, list[str]] = {}
    for column, values in numbers.items():
        of_error = numbers.get(f"mcse_{column}", numbers.get(f"mcse_{column}_batch"))
        if column.startswith("ess_") or column == "min_ss":
            texts[column] = [_finite(number, _whole) for number in values.tolist()]
        elif column.startswith("r_hat"):
            texts[column] = [_finite(number, "{:.2f}".format) for number in values.tolist()]
        elif of_error is not None:
            pairs = zip(values.tolist(), of_error.tolist(), strict=True)
            texts[column] = [_estimate(number, error, precision) for number, error in pairs]
        else:
            texts[column] = [_rounded(number, precision) for number in values.tolist()]
    return {column: dict(zip(labels, shown, strict=True)) for column, shown in texts.items()}


def _finite(number: float, form: Callable[[float], str]) -> str:
    return form(number) if math.isfinite(number) else str(number)


def _whole(number: float) -> str:
    return str(math.floor(number))


def _rounded(number: float, precision: Rounding) -> str:
    return _finite(number, lambda finite: f"{round_number(finite, precision):g}")


def _estimate(number: float, error: float, precision: Rounding) -> str:
    """A number with as many decimals as twice its error has leading ones."""
    if not math.isfinite(number) or not math.isfinite(error):
        return _rounded(number, precision)
    decimals = -math.floor(math.log10(2 * abs(error))) if error else 0
    return f"{number:.2e}" if decimals < 0 else f"{round(number, decimals):g}"


def to_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table for JSON."""
    columns = list(map(str, frame.columns))
    rows = frame.to_numpy(dtype=np.float64).tolist()
    return [
        {"name": str(label), **dict(zip(columns, row, strict=True))}
        for label, row in zip(frame.index, rows, strict=True)
    ]
