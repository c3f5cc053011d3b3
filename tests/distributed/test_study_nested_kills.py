"""A trial of two workers loses a worker, or its own process: it goes on, and the study ends as the undisturbed one."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
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
    until(lambda: driver.poll() is not None or any(e["event"] == "result" for e in events(folder.results)))
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
    assert_as(calm, study)


def newest_workers(study: Study) -> list[int]:
    """Process ids, by rank, of the newest workers of the trial that is at work; none where they are not yet."""
    at_work = [run for run in sorted(StudyDir.of(study).trials.glob("trial_*")) if (run / "train.log").is_file()]
    said = re.findall(r"workers: (rank 0 .*)", (at_work[-1] / "train.log").read_text()) if at_work else []
    pids = [int(pid) for pid in re.findall(r"is process (\d+)", said[-1])] if said else []
    return pids if all(map(psutil.pid_exists, pids)) else []


def test_ten_killed_workers_in_a_row(tmp_path: Path, calm: Study) -> None:
    """Now rank 0, now rank 1, at any moment, over both trials."""
    base = {**BASE, "distributed__max_failures": 10}
    study = line_study(tmp_path, base=base, workers_per_trial=2, **KEYS)
    driver = child(study, sleep_s=0.3, dry=False, cpus=2)
    draw = random.Random(7)
    for kill in range(10):
        pids = until(lambda: driver.poll() is not None or newest_workers(study))
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(draw.uniform(0.0, 1.5))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[kill % 2], signal.SIGKILL)
        until(lambda old=pids: not any(map(psutil.pid_exists, old)))
    code, output = ended(driver, 250)
    assert code == 0, output
    assert said_at_last(output) == {"most_cpus": 2, "cpus": 0, "groups": [], "processes": []}
    assert_as(calm, study)


def assert_as(calm: Study, study: Study) -> None:
    """Same trials, parameters, values of every epoch, ends; nothing doubled or lost."""
    ours, theirs = story(study), story(calm)
    assert list(ours) == list(theirs)
    for number, trial in theirs.items():
        assert ours[number]["params"] == pytest.approx(trial["params"], rel=1e-6)
        assert ours[number]["values"] == pytest.approx(trial["values"], rel=1e-6)
        assert [end[:2] for end in ours[number]["ends"]] == [end[:2] for end in trial["ends"]]
