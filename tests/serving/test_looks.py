"""The looks that live pages share: they continue, whatever happens to one of them."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event

import pytest

import zarrtrace as zt
from zarrtrace.report.values import View
from zarrtrace.serving import live, repeated
from zarrtrace.serving.live import Live
from zarrtrace.serving.repeated import Repeated


def heading(shown: live.Shown | None) -> str:
    assert shown is not None
    return str(shown.values(View())["heading"])


def test_a_look_that_fails_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trace = zt.create(tmp_path / "run", chains=1, draws=9, posterior={"mu": 0.0})
    monkeypatch.setattr(repeated, "EVERY", 0.0)
    watched = Live(trace._hierarchy)
    watched.look()
    seen = Event()
    watched.looks.listeners.append(seen.set)

    def fail() -> None:
        raise ZeroDivisionError("nobody has thought of it")

    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr(watched._watched, "look", fail)
        watched.looks.start()
        for _ in range(3):
            seen.clear()
            assert seen.wait(60)
        assert "The run cannot be looked at: ZeroDivisionError" in heading(watched.shown)
    assert len(caplog.records) == 1
    for _ in range(2):
        seen.clear()
        assert seen.wait(60)
    assert "new, 1 chain, 0 of 9 draws" in heading(watched.shown)
    watched.looks.stop()


def test_a_browser_that_goes_while_it_is_told_stops_no_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeated, "EVERY", 0.0)
    told = Event()
    looks = Repeated(lambda: None, print)
    looks.listeners += [lambda: 1 / 0, told.set]  # type: ignore[list-item, return-value]
    looks.start()
    for _ in range(2):
        told.clear()
        assert told.wait(60)
    looks.stop()
