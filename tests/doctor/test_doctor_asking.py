"""Probes that crash, hang or fail never break doctor, nor the probes after them."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from cabruca.doctor.asking import Job, ask
from cabruca.doctor.lines import Level, Line, Report


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1] / "support"))


def job(name: str, argument: str = "", *, timeout_s: float = 30.0, level: Level = "error") -> Job:
    return Job(name, f"probes:{name}", argument, timeout_s, level, "the remedy")


def test_answers_come_back_in_order() -> None:
    assert ask([job("fine", "you"), job("odd", "it"), job("fine", "me")]) == [
        Line("fine", "ok", "heard you"),
        Line("odd", "warning", "odd", "mend it"),
        Line("fine", "ok", "heard me"),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("segfaults", "crashed with SIGSEGV"),
        ("exits", "ended with exit code 7 (library: cannot go on)"),
        ("raises", "ValueError: no x"),
        ("is_not_there", "AttributeError: module 'probes' has no attribute 'is_not_there'"),
    ],
)
def test_a_broken_probe_is_a_line_and_the_next_are_asked(name: str, text: str) -> None:
    before, broken, after = ask([job("fine", "a"), job(name, "x", level="warning"), job("fine", "b")])
    assert broken == Line(name, "warning", text, "the remedy")
    assert (before.text, after.text) == ("heard a", "heard b")


def test_a_hanging_probe_is_given_up_with_all_that_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    began = time.monotonic()
    hung, after = ask([job("hangs", str(pid_file), timeout_s=2.0), job("fine", "b")])
    assert hung == Line("hangs", "error", "no answer within 2 s", "the remedy")
    assert after.text == "heard b"
    assert time.monotonic() - began < 20
    helper = int(pid_file.read_text())
    assert not psutil.pid_exists(helper) or psutil.Process(helper).status() == psutil.STATUS_ZOMBIE


def test_the_clock_starts_anew_with_each_probe() -> None:
    lines = ask([job("slow_but_fine", "0.8", timeout_s=1.5) for _ in range(3)])
    assert [line.text for line in lines] == ["done"] * 3


def test_a_process_that_does_not_end_is_ended() -> None:
    began = time.monotonic()
    (line,) = ask([job("leaves_a_thread")])
    assert line.text == "left"
    assert time.monotonic() - began < 15


def test_only_errors_say_that_training_cannot_work() -> None:
    warned = Report((Line("a", "ok", "fine"), Line("b", "warning", "slow", "wait")))
    assert warned.ok
    assert warned.to_dict()["warnings"] == 1
    failed = Report((*warned.lines, Line("c", "error", "gone", "buy it")))
    assert not failed.ok
    assert str(failed.lines[-1]) == "ERROR   c: gone; buy it"
