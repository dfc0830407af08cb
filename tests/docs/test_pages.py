"""The code of the site's pages runs, and prints what the pages say it prints."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest
from scripts import Script

import zarrtrace as zt

pytestmark = pytest.mark.apart

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = sorted([*DOCS.glob("howto/*.md"), *DOCS.glob("explanation/*.md"), DOCS / "index.md"])
FENCE = re.compile(r"^```(\{setup\}|python|text|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END = "--- end of a block ---"


class Step(NamedTuple):
    """A block of Python, and the text that the page shows after it, if any."""

    code: str
    shown: str


def steps(page: Path) -> list[Step]:
    found: list[Step] = []
    language_before = ""
    for language, content in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in ("python", "{setup}"):
            found.append(Step(content, ""))
        elif language == "text" and language_before == "python":
            found[-1] = found[-1]._replace(shown=content)
        language_before = language
    return found


WITH_CODE = [page for page in PAGES if steps(page)]


@pytest.mark.once("newest")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(
    page: Path, script: Script, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page.stem == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
    blocks = steps(page)
    code = "".join(f"{block.code}\nprint({END!r}, flush=True)\n" for block in blocks)
    printed = script.run(code).split(f"{END}\n")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for block, output in zip(blocks, printed, strict=False):
        if block.shown:
            alike = doctest.OutputChecker().check_output(block.shown, output, flags)
            assert alike, f"{block.code}\nshows\n{block.shown}\nand prints\n{output}"


def test_every_page_says_what_is_run() -> None:
    # A block in another language than these is neither run nor compared. What needs MPI, submitit,
    # Parsl or Ray is `py`: tests/recording/test_cluster_executors.py runs it.
    known = {"python", "{setup}", "text", "sh", "diff"}
    for page in PAGES:
        fences = re.findall(r"^```([\w{}-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        directives = {name for name in fences if name.startswith("{")} - {"{setup}"}
        started_elsewhere = {"py"} if page.stem == "clusters" else set()
        assert set(fences) - directives - started_elsewhere <= known, page


def test_the_job_script_on_the_page_is_the_one_that_slurm_runs_in_a_test() -> None:
    def commands(script: str) -> list[str]:
        lines = [line for line in script.splitlines() if line]
        return [line for line in lines if not line.startswith("# ")]

    page = (DOCS / "howto" / "clusters.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```sh\n(#!.*?)^```$", page, re.DOTALL | re.MULTILINE)
    example = DOCS.parent / "examples" / "slurm_array.sh"
    assert commands(shown) == commands(example.read_text(encoding="utf-8"))


@pytest.mark.long
@pytest.mark.once("newest")
def test_the_site_builds_without_a_warning_and_is_read_offline(tmp_path: Path) -> None:
    # A copy, so that every tutorial runs and nothing is written beside the sources.
    made = shutil.ignore_patterns("tutorials", "generated", "_build", "__pycache__", "*.zarr")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=made)
    (tmp_path / "zarrtrace.svg").symlink_to(DOCS.parent / "zarrtrace.svg")
    site = tmp_path / "site"
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", site],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(DOCS.parent)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert built.returncode == 0, built.stderr
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[-1]
    documented = zlib.decompress(inventory).decode()
    for name in zt.__all__:
        assert re.search(rf"^zarrtrace\.(errors\.)?{name}\b.* py:", documented, re.MULTILINE), name
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"https?:[^\"]*", page.read_text()
        )
        assert not fetched, page
