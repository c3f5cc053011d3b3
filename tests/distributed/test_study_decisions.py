"""What was decided is done, wherever between result, decision and end a kill falls."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_books_line import Session, session
from study_line import line_study, story

from cabruca.config.study import Study
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import events

ASHA = {"type": "asha", "grace_period": 1, "reduction_factor": 2}


def good_and_poor(driver: Session) -> int:
    """A good trial's first epoch, and a poor one that has begun."""
    good = driver.begin()
    assert good is not None
    assert driver.report(good, 1, 0.9) is None
    poor = driver.begin()
    assert poor is not None
    return poor


def cut_after(study: Study, kind: str, trial: int) -> None:
    """The journal as a kill right after that event leaves it."""
    path = StudyDir.of(study).results
    lines = path.read_text().splitlines(keepends=True)
    last = max(i for i, e in enumerate(events(path)) if e["event"] == kind and e["trial"] == trial)
    path.write_text("".join(lines[: last + 1]))


@pytest.mark.parametrize("kind", ["result", "decided"])
def test_a_stop_outlives_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    study = line_study(tmp_path, scheduler=ASHA, max_concurrent_trials=2)
    with session(study, monkeypatch) as driver:
        poor = good_and_poor(driver)
        reason = driver.report(poor, 1, 0.1)
        assert reason == "stopped by asha at rung 1 after epoch 1"
    calm = story(study)
    cut_after(study, kind, poor)
    with session(study, monkeypatch) as driver:
        assert [driver.begin(), driver.begin()] == [0, poor]
        assert driver.desk.desk.stop_of(0) is None
        assert driver.desk.desk.stop_of(poor) == reason
    assert story(study) == calm
    with session(study, monkeypatch):
        pass
    assert sum(e["event"] == "decided" for e in events(StudyDir.of(study).results)) == 1


def test_a_stop_that_was_done_is_not_decided_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = line_study(tmp_path, scheduler=ASHA, max_concurrent_trials=2)
    with session(study, monkeypatch) as driver:
        poor = good_and_poor(driver)
        driver.end(poor, "stopped", 1, str(driver.report(poor, 1, 0.1)))
    before = StudyDir.of(study).results.read_bytes()
    with session(study, monkeypatch) as driver:
        assert driver.begin() == 0
    assert StudyDir.of(study).results.read_bytes() == before
