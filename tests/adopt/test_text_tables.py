"""Tables of Cobaya, GetDist, MrBayes and BEAST become a trace while they grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.errors import FinishedError, InvalidInputError, TraceError, TraceExistsError

TABLES = Path(__file__).parent.parent / "data" / "text_tables"
MRBAYES = [TABLES / "mrbayes.run1.p", TABLES / "mrbayes.run2.p"]
COBAYA = TABLES / "cobaya.1.txt"
# As BEAST 2 writes it: the model in comments, and a tab at the end of each line.
BEAST = (
    "#\n#model:\n#\n#<beast version='2.0'>\n#</beast>\n"
    "Sample\tposterior\tprior\tclock/rate\tdraw\t\n"
    "0\t-Infinity\t-1.5\t0.25\t3\t\n1000\t-2.5\tNaN\t0.5\t4.0E-3\t\n2000\t-1\t-1\t1\t5\t\n"
)

pytestmark = pytest.mark.once("newest")


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


# What is read ---------------------------------------------------------------------------------


def test_mrbayes_chains_keep_their_generations_and_their_thinning(tmp_path: Path) -> None:
    trace = zt.follow(MRBAYES, tmp_path / "run.zarr", once=True)
    numbers = [np.loadtxt(file, skiprows=2) for file in MRBAYES]
    assert list(trace.posterior) == ["TL", "pi(A)", "pi(C)", "pi(G)", "pi(T)"]
    assert np.array_equal(trace.get("pi(C)"), [chain[:, 5] for chain in numbers])
    assert list(trace.sample_stats) == ["Gen", "LnL", "LnPr"]
    assert trace.sample_stats.Gen.dtype == np.int64
    assert trace.get("Gen")[1].tolist() == list(range(0, 3001, 100))
    assert trace.posterior.attrs["thinning"] == 100
    assert (trace.has_end, trace.tune, trace.status) == (False, 0, "stopped")


def test_a_row_of_cobaya_is_as_many_draws_as_its_weight_says() -> None:
    trace = zt.from_datatree(COBAYA)
    rows = np.loadtxt(COBAYA)
    weights = rows[:, 0].astype(int)
    assert weights.max() > 1
    assert np.array_equal(trace.get("y")[0], np.repeat(rows[:, 3], weights))
    assert list(trace.posterior) == ["x", "y", "r"]
    assert "weight" not in trace.sample_stats
    assert np.array_equal(trace.get("minuslogpost")[0], np.repeat(rows[:, 1], weights))


def test_the_names_of_getdist_are_in_a_file_beside_it(tmp_path: Path) -> None:
    trace = zt.from_datatree(TABLES / "getdist_1.txt")
    assert list(trace.posterior) == ["x", "y", "r"]
    # GetDist has written what Cobaya had, with fewer digits.
    assert np.allclose(trace.get("y"), zt.from_datatree(COBAYA).get("y"))
    text = (TABLES / "getdist_1.txt").read_text()
    with pytest.raises(InvalidInputError, match=r"no names: .* there is no \.paramnames file"):
        zt.follow(written(tmp_path / "getdist_1.txt", text), None, once=True)


def test_beast_is_read_with_its_comments_tabs_and_infinities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 10):
        written(tmp_path / f"run-{number}.log", BEAST.replace("0.25", f"{number}"))
    with pytest.warns(RuntimeWarning, match="the parameter 'draw' is stored as 'draw_'"):
        assert main(["adopt", f"{tmp_path}/run-*.log", str(tmp_path / "run.zarr")]) == 0
    assert "3 chains" in capsys.readouterr().out
    trace = zt.open(tmp_path / "run.zarr")
    assert trace.get("clock.rate").tolist() == [[1, 0.5, 1], [2, 0.5, 1], [10, 0.5, 1]]
    assert trace.posterior["clock.rate"].attrs["name_in_model"] == "clock/rate"
    assert trace.get("draw_")[0].tolist() == [3, 0.004, 5]
    assert trace.get("posterior")[0].tolist() == [-np.inf, -2.5, -1]
    assert np.isnan(trace.get("prior")[0, 1])
    assert trace.get("Sample")[0].tolist() == [0, 1000, 2000]
    assert trace.posterior.attrs["thinning"] == 1000


def test_the_first_draws_are_warmup_where_that_is_said(tmp_path: Path) -> None:
    for trace in (zt.from_datatree(MRBAYES, tune=10), zt.follow(MRBAYES, None, once=True, tune=10)):
        assert (trace.tune, trace.recorded.tolist()) == (10, [31, 31])
        assert trace.warmup_sample_stats.Gen[1].values.tolist() == list(range(0, 1000, 100))
        assert trace.get("Gen").shape == (2, 21)


def test_separators_and_names_are_those_of_the_first_row(tmp_path: Path) -> None:
    for text in ('"pop size","b"\r\n1,2\r\n3,4\r\n', "pop size\tb\n1\t2\n# note\n\n3\t4\n",
                 "# a comment\n#pop_size b\n# one more comment\n 1  2\n 3  4\n",
                 "\ufeffpop_size b\n1 2\n3 4\n5"):  # fmt: skip
        trace = zt.follow(written(tmp_path / "table.txt", text), None, once=True)
        assert [name.replace(" ", "_") for name in trace.posterior] == ["pop_size", "b"]
        assert trace.get("b").tolist() == [[2, 4]]


# Files that grow ------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "name", "column"), [(COBAYA, "x", 2), (MRBAYES[0], "TL", 3)])
def test_a_table_that_grows_gives_each_whole_line_once(
    source: Path, name: str, column: int, tmp_path: Path
) -> None:
    text, path, file = source.read_bytes(), tmp_path / "run.zarr", tmp_path / source.name
    ends = np.random.default_rng(3).integers(400, len(text), 5)
    for end in [*sorted(ends), len(text)]:
        file.write_bytes(text[:end])
        zt.follow(file, path, once=True)
        lines = text[:end].decode().split("\n")[:-1]
        rows = np.array([line.split() for line in lines if line[:1] not in "#[G"], dtype=float)
        weights = rows[:, 0].astype(int) if source == COBAYA else 1
        assert np.array_equal(zt.open(path).get(name)[0], np.repeat(rows[:, column], weights))


def test_a_heavy_row_is_recorded_in_pieces(tmp_path: Path) -> None:
    text = "# weight minuslogpost x\n25000 1 0.5\n0 1 7\n1 1 2\n"
    trace = zt.follow(written(tmp_path / "a.txt", text), None, once=True)
    assert trace.recorded.tolist() == [25001]
    assert trace.get("x").sum() == 12502


def test_a_damaged_line_keeps_the_rows_before_it(tmp_path: Path) -> None:
    for row, says in (("1,oops", "draw 2 has 'oops'"), ("1", "draw 2 has 1 values, where 2")):
        file = written(tmp_path / "a.csv", f"a,b\n1,2\n3,4\n{row}\n5,6\n")
        with pytest.raises(InvalidInputError, match=says):
            zt.follow(file, tmp_path / "run.zarr", once=True, overwrite=True)
        assert zt.open(tmp_path / "run.zarr").get("b").tolist() == [[2, 4]]


def test_a_finished_table_takes_no_more_draws(tmp_path: Path) -> None:
    path, file = tmp_path / "run.zarr", written(tmp_path / "a.csv", "a,b\n1,2\n")
    zt.follow(file, path, once=True).finish()
    for text in ("a,b\n1,2\n", "a,b\n1,2\n3,4\n"):
        with pytest.raises(FinishedError, match="was finished before its chains had ended"):
            zt.follow(written(file, text), path)
    assert zt.open(path).get("b").tolist() == [[2]]


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "says"), [
    ("# weight minuslogpost x\n1 2 3\n0.5 2 3\n", "row at draw 1 is 0.5, .* makeSingle"),
    ("# weight minuslogpost x\n-1 2 3\n", "weight of the row at draw 0 is -1"),
    ("It was a dark night.\nThere was no table.\n", "not a table .* two lines are not numbers"),
    ("a b c\n1 2\n", "no line before the first 2 numbers has as many words"),
    ("a,b,a\n1,2,3\n", "two columns are called 'a'"),
    (",b\n1,2\n", "a column has no name"),
    ("# sta", "no chain in .* has a draw|no file with the names of its columns"),
    ("Gen\tLnL\n1\t2\n2\t3\n", "those of the sampler, without a parameter"),
])  # fmt: skip
def test_a_file_that_is_not_a_table_of_draws_says_why(text: str, says: str, tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", text)
    for function in (zt.from_datatree, lambda it: zt.follow(it, None, once=True)):
        with pytest.raises(TraceError, match=says):
            function(file)


def test_tables_of_two_runs_are_refused(tmp_path: Path) -> None:
    one, two = written(tmp_path / "1.p", MRBAYES[0].read_text()), tmp_path / "2.p"
    text = MRBAYES[1].read_text()
    for changed, says in (
        (text.replace("[ID: 9", "[ID: 8"), "its ID is 9359986273 there, 8359986273 here"),
        (text.replace("TL", "TL{1}"), "their columns are different"),
    ):
        with pytest.raises(InvalidInputError, match=says):
            zt.follow([one, written(two, changed)], None, once=True)
    with pytest.raises(InvalidInputError, match="given twice"):
        zt.from_datatree([one, one])
    zt.follow(one, tmp_path / "run.zarr", once=True)
    with pytest.raises(InvalidInputError, match="its draw 30 differs in TL"):
        zt.follow(written(two, text), tmp_path / "run.zarr", once=True)
    with pytest.raises(TraceExistsError):
        zt.follow(written(two, BEAST.replace("draw", "mu")), tmp_path / "run.zarr", once=True)
