"""`Trace.report` and `zarrtrace report`: one page that opens offline, and what it says."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bokeh.models import DataTable

import zarrtrace as zt
from zarrtrace.cli import main
from zarrtrace.report.drawing import Drawer
from zarrtrace.report.finished import gather
from zarrtrace.report.page import lay_out
from zarrtrace.report.thinning import Thinning
from zarrtrace.report.values import View, values_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[..., "Page"]

# All text of a page, also of parts that Bokeh puts into trees of their own.
ALL_TEXT = """() => {
  const found = []
  const walk = (node) => {
    if (node.nodeType == Node.TEXT_NODE) found.push(node.textContent)
    if (node.shadowRoot) walk(node.shadowRoot)
    if (!["SCRIPT", "STYLE"].includes(node.nodeName)) node.childNodes.forEach(walk)
  }
  walk(document.body)
  return found.join(" ")
}"""

MARKUP = "<script>window.taken=1</script>"
IMAGE = "<img src=x onerror=window.taken=2>"
NAMES = [MARKUP, IMAGE, "a[b]", "🎲", "שלום", "$$x^2$$", "\u202ereversed"]


def recorded(path: Path, draws: int = 60, chains: int = 2, **more: Any) -> zt.Trace:
    """A trace with 20 draws of warmup, whose chain 1 disagrees, with divergences and energies."""
    trace = zt.create(
        path,
        chains=chains,
        tune=20,
        draws=200,
        posterior={"mu": zt.Var(), "theta": zt.Var(shape=(3,))},
        sample_stats={
            "lp": zt.Var(), "energy": zt.Var(), "diverging": zt.Var(dtype=bool),
        },
        **more,
    )  # fmt: skip
    for chain in range(chains):
        rng = np.random.default_rng(chain)
        with trace.writer(chain) as writer:
            writer.record_block(
                {"mu": rng.normal(size=draws) + chain, "theta": rng.normal(size=(draws, 3))},
                {
                    "lp": rng.normal(size=draws),
                    "energy": rng.normal(size=draws),
                    "diverging": np.arange(draws) % 30 == 29,
                },
            )
    return trace


def odd(path: Path) -> zt.Trace:
    """A trace of a run that was stopped, with all that a page has to say in words."""
    trace = zt.create(
        path,
        chains=2,
        tune=10,
        draws=100,
        draws_per_chunk=16,
        checksum=True,
        coords={"name": NAMES},
        posterior={
            IMAGE: 0.0,
            "named": zt.Var(dims="name"),
            "nan": 0.0, "infinite": 0.0, "constant": 0.0, "huge": 0.0, "count": 0,
            "flag": zt.Var(dtype=bool), "complex": zt.Var(dtype=complex), "text": zt.Var(dtype=str),
            "damaged": 0.0,
        },
    )  # fmt: skip
    for chain, draws in enumerate([80, 60]):
        rng = np.random.default_rng(chain)
        normal = rng.normal(size=draws)
        with trace.writer(chain) as writer:
            writer.record_block(
                {
                    IMAGE: normal,
                    "named": rng.normal(size=(draws, len(NAMES))),
                    "nan": np.full(draws, np.nan),
                    "infinite": np.where(np.arange(draws) == 40, np.inf, normal),
                    "constant": np.full(draws, 2.5), "huge": 1e300 * normal,
                    "count": rng.poisson(3, draws), "flag": normal > 0, "complex": normal * 1j,
                    "text": np.array(["word"] * draws), "damaged": normal,
                }
            )  # fmt: skip
    [chunk] = path.glob("posterior/damaged/c.1.1")
    chunk.write_bytes(b"\0" * 50)
    return trace


def text_of(page: Page) -> str:
    found: str = page.evaluate(ALL_TEXT)
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    "scheme",
    [
        pytest.param("light", marks=pytest.mark.once("oldest")),
        pytest.param("dark", marks=pytest.mark.once("newest")),
    ],
)
def test_a_page_says_what_is_odd_and_runs_nothing_of_a_name(
    tmp_path: Path, open_page: Open, scheme: str
) -> None:
    trace = odd(tmp_path / "run.zarr")
    page = open_page(trace.report(tmp_path / "run.html"), width=400, scheme=scheme)
    said = text_of(page)
    for words in (
        "complex, text in posterior",
        "posterior/damaged, chain 1, draws 16 to 31",
        "the chains of posterior have 50 to 70 draws",
        "stopped",
        MARKUP,
        "a[b]",
        "🎲",
        "שלום",
        r"\u202ereversed",
        "no draw is a finite number",
        "2 of 140 draws are NaN or infinite",
        "every draw is the same",
        "The sampler has not recorded which draws diverged.",
        "The sampler has recorded no energy",
    ):
        assert words in said, words
    assert page.evaluate("window.taken") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.long
@pytest.mark.once("newest")
def test_the_table_is_filtered_and_turns_to_the_trace_of_a_row(
    tmp_path: Path, open_page: Open
) -> None:
    trace = zt.create(
        tmp_path / "run.zarr", chains=2, draws=400, posterior={"x": zt.Var(shape=30), "y": 0.0}
    )
    for chain in range(2):
        rng = np.random.default_rng(chain)
        with trace.writer(chain) as writer:
            draws = rng.normal(size=400)
            writer.record_block({"x": rng.normal(size=(400, 30)), "y": draws + 9 * chain})
    page = open_page(trace.report(tmp_path / "run.html"))
    assert "31 of 31 scalars" in text_of(page)
    page.get_by_label("Name contains").fill("X[2")
    page.get_by_text("11 of 31 scalars").wait_for()
    names = page.locator(".slick-pane-left .slick-row")
    assert names.count() == 11
    page.locator(".slick-cell", has_text="x[27]").click()
    page.locator(".name", has_text="x[27]").first.wait_for()
    page.get_by_label("Name contains").fill("")
    page.get_by_label("Which").select_option(index=1)
    page.get_by_text("1 of 31 scalars", exact=True).wait_for()
    assert names.all_inner_texts() == ["y"]


def test_the_numbers_are_those_of_the_summary_and_the_verdict(tmp_path: Path) -> None:
    trace = recorded(tmp_path / "run.zarr")
    content = gather(trace._now(), ["theta"])
    frame = trace.summary(round_to="none")
    assert content.table is not None
    assert content.traces is not None
    assert content.table.labels == list(frame.index)
    for name in frame.columns:
        np.testing.assert_array_equal(content.table.columns[name], frame[name])
    assert content.findings == trace.diagnose().findings
    drawn = {scalar.label: scalar for scalar in content.traces.scalars}
    assert list(drawn) == ["theta[0]", "theta[1]", "theta[2]", "mu"]
    assert drawn["mu"].rhat == frame.loc["mu", "r_hat"]
    assert "R-hat" in content.table.problems[0]
    mu = trace.get("mu")
    assert (drawn["mu"].low, drawn["mu"].high) == (mu.min(), mu.max())
    assert content.over_draws is not None
    assert content.over_draws.rhat[-1].tolist() == [one.rhat for one in drawn.values()]
    assert content.traces.divergences.tolist() == [29, 59]
    assert content.pairs is not None
    assert int(content.pairs.is_diverging.sum()) == 4
    assert [chain.divergences for chain in content.chains] == [2, 2]


def test_a_run_without_draws_in_warmup_or_with_one_chain_has_a_page(tmp_path: Path) -> None:
    def said(trace: zt.Trace) -> str:
        trace.report(trace.path + ".html")
        content = gather(trace._now())
        return content.verdict + "".join(finding.says for finding in content.findings)

    empty = zt.create(tmp_path / "new.zarr", chains=2, draws=9, posterior={"x": 0.0})
    assert "it has no draw yet" in said(empty)
    warmup = recorded(tmp_path / "warmup.zarr", draws=15)
    assert "no draw after warmup yet, and 15 of warmup" in said(warmup)
    content = gather(warmup._now())
    assert content.traces is not None
    assert content.traces.scalars[0].lines[0].tolist() == pytest.approx(
        warmup.get("mu", group="warmup_posterior")[0].tolist()
    )
    assert "cannot be computed from one chain" in said(recorded(tmp_path / "one.zarr", chains=1))
    words = zt.create(tmp_path / "text.zarr", chains=1, draws=1, posterior={"x": zt.Var(dtype=str)})
    with words.writer(0) as writer:
        writer.record({"x": "word"})
    assert "it has no variable of numbers" in said(words)


def test_numbers_that_float64_does_not_hold_and_no_numbers_are_said_in_words(
    tmp_path: Path,
) -> None:
    trace = zt.create(tmp_path / "run.zarr", chains=2, draws=9, posterior={"large": 0, "same": 0})
    for chain in range(2):
        with trace.writer(chain) as writer:
            writer.record_block({"large": 2**60 + np.arange(9), "same": np.full(9, 3)})
    content = gather(trace._now())
    assert content.traces is not None
    notes = {scalar.label: scalar.note for scalar in content.traces.scalars}
    assert "as the nearest float64" in notes["large"]
    assert notes["same"] == "every draw is the same"
    said = values_of(content, View())
    assert "in the bulk, " in str(said["title 0"])
    empty = zt.create(
        tmp_path / "empty.zarr", chains=2, draws=9, posterior={"x": zt.Var(shape=(0,))}
    )
    for chain in range(2):
        with empty.writer(chain) as writer:
            writer.record_block({"x": np.empty((9, 0))})
    findings = [finding.says for finding in gather(empty._now()).findings]
    assert "R-hat cannot be computed: no variable has an element" in findings
    page = lay_out(content, said)
    [table] = [root for root in page.roots if isinstance(root, DataTable)]
    assert [column.title for column in table.columns][:2] == ["name", "r_hat"]


def test_thinning_keeps_the_extremes_of_each_column_of_pixels() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(40, 100_000))
    values[17, 50_001], values[3, 2] = 900.0, -800.0
    thinning = Thinning(range(10, 100_010), range(40))
    assert len(thinning.lines) == 16
    assert sorted(chain for line in thinning.lines for chain in line) == list(range(40))
    lines = thinning.lines_of(values)
    for line, chains in zip(lines, thinning.lines, strict=True):
        assert line.dtype == np.float32
        assert line.shape == thinning.x.shape
        short = values[chains].astype(np.float32)
        assert (line.min(), line.max()) == (short.min(), short.max())
    [spiked] = [line for line, chains in zip(lines, thinning.lines, strict=True) if 17 in chains]
    assert abs(thinning.x[spiked.argmax()] - 50_011) < 1000
    diverging = values > 800
    assert len(thinning.columns_with(diverging)) == 1
    few = Thinning(range(5), range(2))
    assert few.lines_of(values[:2, :5])[1].tolist() == values[1, :5].astype(np.float32).tolist()
    far = 1e9 + values[:1, :5]
    np.testing.assert_array_equal(Thinning(range(5), [0]).lines_of(far)[0], far[0])
    wide = np.array([[-1.7e308, 1.7e308]])
    with np.errstate(over="raise"):
        np.testing.assert_array_equal(Thinning(range(2), [0]).lines_of(wide)[0], wide[0])


@pytest.mark.once("newest")
def test_a_page_is_small(tmp_path: Path) -> None:
    def megabytes(size: int, draws: int) -> float:
        trace = zt.create(
            tmp_path / f"{size}.zarr", chains=4, draws=draws, posterior={"x": zt.Var(shape=size)}
        )
        for chain in range(4):
            rng = np.random.default_rng(chain)
            with trace.writer(chain) as writer:
                writer.record_block({"x": rng.normal(size=(draws, size))})
        return trace.report(tmp_path / f"{size}.html").stat().st_size / 1e6

    def recorded_in_variables(number: int) -> zt.Trace:
        posterior = {f"v{name}": 0.0 for name in range(number)}
        trace = zt.create(tmp_path / "many.zarr", chains=2, draws=8, posterior=posterior)
        for chain in range(2):
            rng = np.random.default_rng(chain)
            with trace.writer(chain) as writer:
                writer.record_block({name: rng.normal(size=8) for name in posterior})
        return trace

    many = recorded_in_variables(10_000).report(tmp_path / "many.html")
    assert many.stat().st_size / 1e6 < 8
    assert '"v9999"' in many.read_text(encoding="utf-8")
    assert megabytes(50, 2000) < 5
    assert megabytes(5000, 12) < 8


def test_an_existing_file_is_replaced_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path / "run.zarr")
    command = ["report", str(tmp_path / "run.zarr"), "-o", str(tmp_path / "page.html")]
    assert main(command) == 0
    page = (tmp_path / "page.html").stat()
    assert f"page.html: {page.st_size / 1e6:.1f} MB" in capsys.readouterr().out
    before = page.st_ino
    assert main(command) == 1
    assert "there is something already" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--var-names", "mu"]) == 0
    assert (tmp_path / "page.html").stat().st_ino != before
    assert {path.name for path in tmp_path.iterdir()} == {"run.zarr", "page.html"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.zarr"], "there is nothing at"),
        (["run.zarr", "-o", "no/page.html"], "in an existing directory"),
        (["run.zarr", "--var-names", "nu"], "there is no variable 'nu'"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    recorded(tmp_path / "run.zarr")
    assert main(["report", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]


@pytest.mark.once("newest")
@pytest.mark.parametrize("is_finished", [False, True])
def test_a_report_changes_nothing_of_the_trace(tmp_path: Path, is_finished: bool) -> None:
    path = tmp_path / "run.zarr"
    trace = recorded(path)
    if is_finished:
        trace.finish()
    before = everything_in(path)
    zt.open(path, "a").report(tmp_path / "run.html")
    assert everything_in(path) == before


def everything_in(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """The inode, the time of the last change and, of a file, the bytes of all below a path."""
    return {
        str(file): (
            file.stat().st_ino,
            file.stat().st_mtime_ns,
            b"" if file.is_dir() else file.read_bytes(),
        )
        for file in [path, *path.rglob("*")]
    }


@pytest.mark.once("newest")
def test_a_store_that_vanishes_while_a_report_is_made_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = recorded(tmp_path / "run.zarr")

    def vanish_first(drawer: Drawer, places: Any) -> Any:
        shutil.rmtree(trace.path)
        return draw(drawer, places)

    draw = Drawer.draw
    monkeypatch.setattr(Drawer, "draw", vanish_first)
    assert main(["report", trace.path, "-o", str(tmp_path / "run.html")]) == 1
    error = capsys.readouterr().err
    assert "there is no trace at" in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_without_bokeh_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = recorded(tmp_path / "run.zarr")
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with pytest.raises(zt.errors.InvalidInputError, match=r"zarrtrace\[report\]"):
        trace.report(tmp_path / "run.html")
