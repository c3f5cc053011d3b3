"""Repetitions of the best trials: their time, and one that fails; without Ray."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from drawn_study import METRIC, drawn_study

from cabruca.config.study import Study
from cabruca.distributed import repeat
from cabruca.errors import OutOfMemory
from cabruca.tracking.study_dir import StudyDir


class Played:
    """What stands in for Ray: a repetition ends when it is told to leave, or, in time, after `takes_s`.

    `fails`: that many of them, from the first on, fail.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, study_dir: StudyDir, takes_s: float, fails: int = 0) -> None:
        self.fails = fails
        self.began: list[str] = []
        self.leave: str | None = None
        self._dir, self._takes_s = study_dir, takes_s
        self._ends: dict[Any, float] = {}
        desk = SimpleNamespace(ask_leave=SimpleNamespace(remote=self._ask_leave))
        monkeypatch.setattr(repeat, "open_desk", lambda ray, kind: desk)
        monkeypatch.setattr("ray.remote", lambda **_: lambda function: SimpleNamespace(remote=self._begin))
        monkeypatch.setattr("ray.wait", self._wait)
        monkeypatch.setattr("ray.get", self._end)
        monkeypatch.setattr("ray.kill", lambda desk: None)

    def _ask_leave(self, reason: str) -> None:
        self.leave = reason

    def _end(self, work: int) -> tuple[str, str]:
        if work <= self.fails:
            return "OutOfMemory", f"a step of repetition {work} does not fit"
        return "done", "interrupted" if self.leave else "finished"

    def _begin(self, work: Any, folder: str) -> int:
        run_dir = work.run_dir
        self.began.append(run_dir.path.name)
        run_dir.path.mkdir(parents=True)
        self._ends[len(self.began)] = time.monotonic() + self._takes_s
        if self._takes_s == 0 and len(self.began) > self.fails:
            run_dir.status.write_text(json.dumps({"state": "finished"}))
            row = {"epoch": 1, "step": 1, METRIC: 0.1 * len(self.began), "time/epoch_s": 1.0}
            run_dir.metrics.write_text(json.dumps(row) + "\n")
        return len(self.began)

    def _wait(self, running: list[int], timeout: float, **_: Any) -> tuple[list[int], list[int]]:
        time.sleep(0.02)
        done = [one for one in running if self.leave is not None or time.monotonic() >= self._ends[one]]
        return done[:1], running


def again(study: Study, study_dir: StudyDir, ends_in_s: float | None) -> repeat.Repeats:
    places: Any = SimpleNamespace(place=lambda number, params, seed: None)
    ends_at = None if ends_in_s is None else time.monotonic() + ends_in_s
    return repeat.repeat_best(study, study_dir, top=2, seeds=2, ends_at=ends_at, places=places)


@pytest.mark.parametrize(("ends_in_s", "began"), [(-1.0, 0), (0.1, 2)])
def test_they_leave_when_the_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_in_s: float, began: int
) -> None:
    study, study_dir = drawn_study(tmp_path)  # two at a time
    played = Played(monkeypatch, study_dir, takes_s=60.0)
    found = again(study, study_dir, ends_in_s)
    assert (found.state, found.exit_code) == ("stopped", 0)
    assert len(played.began) == began
    assert played.leave == (None if began == 0 else "the time budget is used up")
    assert [row["values"] for row in json.loads(study_dir.repeats_json.read_text())["trials"]] == [[], []]


@pytest.mark.parametrize("ends_in_s", [None, 60.0])
def test_in_time_all_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_in_s: float | None) -> None:
    study, study_dir = drawn_study(tmp_path)
    played = Played(monkeypatch, study_dir, takes_s=0.0)
    found = again(study, study_dir, ends_in_s)
    assert (found.state, len(played.began)) == ("finished", 4)
    assert [row["values"] for row in found.rows] == [pytest.approx([0.1, 0.2]), pytest.approx([0.3, 0.4])]


def test_one_that_fails_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, study_dir = drawn_study(tmp_path)
    monkeypatch.setattr(repeat, "trials_at_once", lambda *_: 1)  # side by side the next begins before one fails
    played = Played(monkeypatch, study_dir, takes_s=0.0, fails=2)
    with pytest.raises(
        OutOfMemory, match=r"seed_1: a step of repetition 1 .*; 1 more failed; repeats.json has the others"
    ):
        again(study, study_dir, None)
    assert len(played.began) == 4
    rows = json.loads(study_dir.repeats_json.read_text())["trials"]
    assert [row["values"] for row in rows] == [[], pytest.approx([0.3, 0.4])]
