"""A trace goes into one file and comes back whole: netCDF, and a zip."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Place
from zarr.storage import ZipStore

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.errors import IncompleteTraceError, InvalidInputError, TraceExistsError

VARIABLES: dict[str, zt.Var] = {
    "x": zt.Var(),
    "theta": zt.Var(dims="school", dtype="float32"),
    "half": zt.Var(dtype="float16"),
    "z": zt.Var(dtype="complex64"),
    "n": zt.Var(dtype="uint64"),
    "small": zt.Var(dtype="int8"),
    "yes": zt.Var(dtype=bool),
    "word": zt.Var(dtype=str),
    "when": zt.Var(dtype="datetime64[ns]"),
    "lasted": zt.Var(dtype="timedelta64[ms]"),
}


def values(chain: int, draw: int) -> dict[str, Any]:
    return {
        "x": chain + draw, "theta": [draw, chain, np.nan], "half": draw / 2, "z": draw + 1j,
        "n": 2**63 + draw, "small": -draw, "yes": draw % 2 == 0, "word": "" if draw == 5 else "é",
        "when": np.datetime64("NaT" if draw == 4 else "2026-01-01", "ns"),
        "lasted": np.timedelta64(draw, "ms"),
    }  # fmt: skip


def whole(place: Place) -> zt.Trace:
    """A finished trace with groups and values of every kind."""
    trace = place.create(
        chains=2,
        tune=3,
        draws=4,
        posterior=VARIABLES,
        sample_stats={"diverging": zt.Var(dtype=bool), "label": zt.Var(dtype=str)},
        coords={"school": ["a", "bé", ""], "on": np.array(["2026-01-01"], "datetime64[ns]")},
        observed_data={"y": ("on", [1.0]), "n": 3},
        name="model",
        attrs={"inference_library": "mine", "numbers": [1, 2]},
    )
    for chain in range(2):
        with trace.writer(chain) as writer:
            for draw in range(7):
                writer.record(values(chain, draw), {"diverging": draw == 3, "label": str(draw)})
    prior = {"x": (("chain", "draw"), np.zeros((1, 5))), "word": ("k", ["a", ""])}
    trace.add_group("prior", {**prior, "metric": (("i", "j"), np.eye(2))})
    trace.table("loss", {"value": float}).append({"value": 0.5})
    trace.segments.add(2, attrs={"epoch": 1})
    trace.finish()
    return trace


def require_same(found: xr.DataTree, expected: xr.DataTree) -> None:
    """The same groups and values in the same order, and the attributes, but for times."""
    assert list(found.children) == list(expected.children)
    for name, group in expected.children.items():
        there = found[name]
        assert list(there.data_vars) == list(group.data_vars)
        assert set(there.coords) == set(group.coords)
        for key, array in group.variables.items():
            # netCDF knows text of any kind.
            is_text = array.dtype.kind in "TOU"
            dtype = np.dtypes.StringDType() if is_text else array.dtype
            ours, theirs = there[key].values.astype(dtype), array.values.astype(dtype)
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name}/{key}")
            assert is_text or there[key].dtype == array.dtype, f"{name}/{key}"
        kept = {k: v for k, v in group.attrs.items() if k not in ("created_at", "sampling_time")}
        for key, value in kept.items():
            assert np.array_equal(there.attrs[key], value), f"{name}: {key}"


# netCDF ---------------------------------------------------------------------------------------


def test_netcdf_and_back(directory: Place, tmp_path: Path) -> None:
    trace = whole(directory)
    expected = trace.to_datatree(save_warmup=True)
    file = trace.to_netcdf(tmp_path / "run.nc", save_warmup=True)
    assert list(tmp_path.glob("*.partial")) == []
    with xr.open_datatree(file, engine="h5netcdf") as found:
        require_same(found, expected)
    for source in (file, expected):
        again = zt.from_datatree(source)
        assert again.tune == 3
        require_same(again.to_datatree(save_warmup=True), expected)


def test_an_existing_file_is_not_replaced_unasked(memory: Place, tmp_path: Path) -> None:
    trace = whole(memory)
    file = trace.to_netcdf(tmp_path / "run.nc", ["posterior"], chains=1)
    with pytest.raises(TraceExistsError, match="something already"):
        trace.to_netcdf(file)
    trace.to_netcdf(file, overwrite=True)
    with xr.open_datatree(file, engine="h5netcdf") as found:
        assert list(found.children) == list(trace.to_datatree().children)


# zip ------------------------------------------------------------------------------------------


def test_a_packed_trace_is_read_by_everybody(place: Place, tmp_path: Path) -> None:
    trace = whole(place)
    file = trace.pack(tmp_path / "run.zip")
    packed = zt.open(file)
    expected = trace.to_datatree(save_warmup=True)
    require_same(packed.to_datatree(save_warmup=True), expected)
    assert packed.table("loss").to_dataset().value.values.tolist() == [0.5]
    assert [segment.attrs for segment in packed.segments] == [{"epoch": 1}]
    with xr.open_datatree(ZipStore(file, mode="r"), engine="zarr") as plain:
        require_same(plain, expected)
    with zipfile.ZipFile(file) as opened:
        assert {item.compress_type for item in opened.infolist()} == {zipfile.ZIP_STORED}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["run.zip"]


def test_what_cannot_be_packed_is_refused(directory: Place, tmp_path: Path) -> None:
    trace = directory.create(chains=1, draws=1, posterior={"x": 0.0})
    with pytest.raises(IncompleteTraceError, match="`zarrtrace finish PATH`"):
        trace.pack()
    with trace.writer(0) as writer:
        writer.record({"x": 1.0})
    trace.finish()
    for place in (tmp_path / "run.tar", directory.path / "run.zip"):
        with pytest.raises(InvalidInputError, match=r"ends in \.zip|lies in the trace"):
            trace.pack(place)
    assert trace.pack() == Path(f"{directory.path}.zip")
    with pytest.raises(TraceExistsError, match="something already"):
        trace.pack()


def test_the_command_packs(
    directory: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole(directory)
    file = tmp_path / "out.zip"
    assert main(["pack", str(directory.path), str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert zt.open(file).finished
    assert main(["pack", str(directory.path), str(file)]) == 1
    assert "something already" in capsys.readouterr().err
