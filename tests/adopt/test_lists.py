"""Lists of numbers in arrays of objects: what samplers make that stop after different stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import zarrtrace as zt
from zarrtrace.errors import SchemaError

POSTERIOR = xr.Dataset({"mu": (("chain", "draw"), np.ones((2, 3)))})


def objects(shape: tuple[int, ...], *items: Any) -> np.ndarray[Any, Any]:
    found = np.empty(len(items), dtype=object)
    for number, item in enumerate(items):
        found[number] = item
    return found.reshape(shape)


@pytest.mark.long
def test_what_sample_smc_returns_is_adopted_with_its_stages() -> None:
    import pymc as pm

    with pm.Model():
        mean = pm.Normal("mean")
        pm.Normal("y", mean, 0.1, observed=[1.0, 2.0, 1.5])
        options = {"cores": 1, "progressbar": False, "compute_convergence_checks": False}
        result = pm.sample_smc(60, chains=3, random_seed=1, **options)
    lists = list(result["sample_stats"]["beta"].values.flat)
    assert len({len(stages) for stages in lists}) > 1
    trace = zt.from_datatree(result)
    assert trace.get("mean").shape == (3, 60)
    stats = trace.sample_stats
    assert stats.beta.dims == ("chain", "stage")
    assert stats.beta_length.values.tolist() == [len(stages) for stages in lists]
    for found, stages in zip(stats.beta.values, lists, strict=True):
        assert found[: len(stages)].tolist() == stages
        assert np.isnan(found[len(stages) :]).all()
    again = zt.from_datatree(trace.to_datatree())
    assert again.sample_stats.identical(stats.assign_attrs(again.sample_stats.attrs))


# Stages take other dimensions where all chains have as many of them.
AS_MANY = [[0.5, 1], [0.25, 1]]
FORMS = {
    "as draws": (("chain", "draw"), np.array(AS_MANY, dtype=object), AS_MANY),
    "beside the chains": (("chain", "beta_dim_0"), np.array(AS_MANY, dtype=object), AS_MANY),
    "one chain as draws": (("chain", "draw"), np.array(AS_MANY[:1]), AS_MANY[:1]),
    "one chain as chains": (("chain",), np.array(AS_MANY[0]), AS_MANY[:1]),
}


@pytest.mark.once("newest")
@pytest.mark.parametrize("form", FORMS)
def test_stages_of_smc_are_stages_however_many_chains_have_as_many(form: str) -> None:
    dims, values, expected = FORMS[form]
    beta = (dims, values)
    attrs = {"inference_library": "pymc"}
    stats = xr.Dataset({"beta": beta, "log_marginal_likelihood": beta}, attrs=attrs)
    posterior = POSTERIOR.isel(chain=slice(len(expected)))
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})
    found = zt.from_datatree(tree).sample_stats.beta
    assert found.dims == ("chain", "stage")
    assert found.values.tolist() == expected


def test_lists_of_each_draw_become_draws_of_a_varying_size() -> None:
    lists = objects((2, 3), [1], [], (2, 3), np.array([4, 5]), [6], [7])
    result = POSTERIOR.assign(x=(("chain", "draw"), lists))
    trace = zt.from_datatree(result)
    found = [[draw.tolist() for draw in chain] for chain in trace.ragged("x")]
    assert found == [[[1], [], [2, 3]], [[4, 5], [6], [7]]]
    assert trace.get("x").dtype == np.int64


@pytest.mark.once("newest")
@pytest.mark.parametrize("item", [["a"], [[1], [2, 3]], [None]], ids=str)
def test_lists_of_anything_else_are_refused(item: list[Any]) -> None:
    result = POSTERIOR.assign(x=(("chain",), objects((2,), item, [1])))
    with pytest.raises(SchemaError, match="x: holds a list, which cannot be stored"):
        zt.from_datatree(result)
