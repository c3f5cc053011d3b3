"""A trial of two workers loses a worker, or its own process: it goes on, and the study ends as the undisturbed one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from ray_line import ended, until
from study_line import child, command_of, line_study, said_at_last, story

from cabruca.config.study import Study
from cabruca.tracking.status import read_status
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KEYS = {"num_trials": 2, "max_epochs": 4, "scheduler": {"type": "none"}}
BASE = {"distributed__dashboard": False}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same trials, each in one process."""
    study = line_study(tmp_path_factory.mktemp("calm"), base=BASE, **KEYS)
    code, output = ended(child(study, dry=False))
    assert code == 0, output
    return study


def own_process(driver: int) -> int | None:
    """The process of the trial that is at work, which the workers are not."""
    for process in psutil.Process(driver).children(recursive=True):
        if "ImplicitFunc" in command_of(process):
            return int(process.pid)
    return None


@pytest.mark.parametrize("victim", ["worker", "trial", "driver"])
def test_a_killed_part_of_a_trial_with_workers(tmp_path: Path, calm: Study, victim: str) -> None:
    study = line_study(tmp_path, base=BASE, workers_per_trial=2, **KEYS)
    driver = child(study, sleep_s=0.1, dry=False, cpus=2)
    folder = StudyDir.of(study)
    until(lambda: driver.poll() is not None or any(e["event"] == "result" for e in events(folder.results)), 150)
    assert driver.poll() is None, driver.communicate()[0]
    if victim == "driver":
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        driver = child(study, dry=False, cpus=2)  # at once: the old trial's processes may still be dying
    else:
        worker = (read_status(folder.trial_dir(0).status) or {})["pid"]
        os.kill(worker if victim == "worker" else until(lambda: own_process(driver.pid)), signal.SIGKILL)
    code, output = ended(driver, 250)
    assert code == 0, output
    assert said_at_last(output) == {"most_cpus": 2, "cpus": 0, "groups": [], "processes": []}
    ours, theirs = story(study), story(calm)
    assert list(ours) == list(theirs)
    for number, trial in theirs.items():
        assert ours[number]["params"] == pytest.approx(trial["params"], rel=1e-6)
        assert ours[number]["values"] == pytest.approx(trial["values"], rel=1e-6)
        assert [end[:2] for end in ours[number]["ends"]] == [end[:2] for end in trial["ends"]]
