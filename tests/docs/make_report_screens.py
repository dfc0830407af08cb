"""Make the pictures of reports: light and dark, 1,400 and 400 pixels wide; and of a live page.

    python tests/docs/make_report_screens.py docs/pictures
    python tests/docs/make_report_screens.py --live docs/pictures
    python tests/docs/make_report_screens.py --whole --only schools SOMEWHERE

It needs PyMC, emcee, Playwright, Pillow, and a Chromium as make_screens.py does.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from make_screens import save
from playwright.sync_api import Browser, sync_playwright

import zarrtrace as zt

HEIGHTS = {1400: 1700, 400: 1400}
IS_DRAWN = "window.Bokeh && !document.querySelector('main > div:empty')"


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--only", choices=list(RUNS))
    parser.add_argument("--whole", action="store_true", help="the whole page, not its top")
    parser.add_argument("--live", action="store_true", help="a run of PyMC at two moments")
    given = parser.parse_args()
    pictures = given.pictures.absolute()
    pictures.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.chdir(folder)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if given.live:
            photograph_live(browser, pictures)
        for name in [] if given.live else [given.only] if given.only else RUNS:
            file = RUNS[name]().report(f"{name}.html")
            photograph(browser, file, pictures, given.whole)
        browser.close()


def photograph(browser: Browser, file: Path, pictures: Path, is_whole: bool) -> None:
    """Write a picture of a report in each width and scheme."""
    for width, height in HEIGHTS.items():
        for scheme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page.goto(file.as_uri())
            page.wait_for_function(IS_DRAWN, timeout=120_000)
            screen = page.screenshot(full_page=is_whole)
            save(screen, pictures / f"report_{file.stem}_{width}_{scheme}.png")
            page.close()


def photograph_live(browser: Browser, pictures: Path) -> None:
    """Write pictures of a live page: soon after the warmup, and when the last draw is there."""
    sampling = Process(target=schools, args=(1500, 2))
    sampling.start()
    while not Path("schools.zarr/_sampling_state/zarr.json").exists():
        time.sleep(0.1)
    command = [sys.executable, "-m", "zarrtrace", "serve", "schools.zarr", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        pages = [
            (
                width,
                browser.new_page(viewport={"width": width, "height": 1100}, color_scheme=scheme),
            )
            for width, scheme in ((1400, "light"), (400, "dark"))
        ]
        for _, page in pages:
            page.goto(address)
        for moment, words in (("early", r"chains of \d+ draws"), ("late", "finished, 4 chains")):
            for width, page in pages:
                page.get_by_text(re.compile(words)).first.wait_for(timeout=600_000)
                page.wait_for_function(IS_DRAWN, timeout=120_000)
                page.wait_for_timeout(1000)
                save(page.screenshot(), pictures / f"live_{moment}_{width}.png")
        server.kill()
    sampling.join()


def schools(draws: int = 1000, cores: int = 1) -> zt.Trace:
    """The eight schools, centred, so that some draws diverge."""
    import pymc as pm

    from zarrtrace.adapters.pymc import ZarrTrace

    effects = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
    errors = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]
    names = [
        *("Choate", "Deerfield", "Phillips Andover", "Phillips Exeter"),
        *("Hotchkiss", "Lawrenceville", "St. Paul's", "Mt. Hermon"),
    ]
    with pm.Model(coords={"school": names}):
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        theta = pm.Normal("theta", mu, tau, dims="school")
        pm.Normal("y", theta, errors, observed=effects, dims="school")
        pm.sample(
            tune=500, draws=draws, chains=4, cores=cores, random_seed=7, progressbar=False,
            trace=ZarrTrace("schools.zarr"),
        )  # fmt: skip
    return zt.open("schools.zarr")


def variables() -> zt.Trace:
    """5,000 variables, of which the chains of a few do not agree."""
    names = [f"effect_{number}" for number in range(5000)]
    trace = zt.create(
        "variables.zarr", chains=4, tune=50, draws=200,
        posterior={name: zt.Var(dtype="float32") for name in names},
    )  # fmt: skip
    for chain in range(4):
        draws = np.random.default_rng(chain).normal(size=(5000, 250))
        draws[::400] += chain / 2
        with trace.writer(chain) as writer:
            writer.record_block(dict(zip(names, draws, strict=True)))
    trace.finish()
    return trace


def walkers() -> zt.Trace:
    """A run of emcee with 32 walkers."""
    import emcee

    from zarrtrace.adapters import emcee as backends

    def log_density(position: np.ndarray) -> float:
        mass, radius, spin = position
        return float(-0.5 * (mass**2 + (radius - mass**2 / 2) ** 2 / 0.3 + spin**2))

    backend = backends.HDFBackend("walkers.zarr", parameter_names=["mass", "radius", "spin"])
    sampler = emcee.EnsembleSampler(32, 3, log_density, backend=backend)
    sampler.run_mcmc(np.random.default_rng(3).normal(size=(32, 3)), 2000)
    return zt.open("walkers.zarr/mcmc")


RUNS: dict[str, Callable[[], zt.Trace]] = {
    "schools": schools,
    "variables": variables,
    "walkers": walkers,
}


if __name__ == "__main__":
    main()
