"""Whatever is killed, by its process id: the study ends as the one that nothing happened to."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from ray_line import ended, epochs_done, until
from study_line import child, folder_of, line_study, story

from cabruca.config.study import Study
from cabruca.tracking.status import read_status
from cabruca.tracking.study_dir import StudyDir, find_study
from cabruca.tracking.study_events import events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SLEEP_S = 0.03
"""Of each batch: an epoch takes a fifth of a second."""


OPTUNA_STATES = {"finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}


def study_in(folder: Path, **keys: Any) -> Study:
    return line_study(folder, base={"distributed__dashboard": False}, **{"num_trials": 5, **keys})


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Nothing happens to it."""
    study = study_in(tmp_path_factory.mktemp("calm"))
    code, output = ended(child(study, dry=False))
    assert code == 0, output
    return study


def in_optuna(study: Study) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{StudyDir.of(study).optuna_db}").get_trials()


def results(study: Study) -> int:
    return sum(event["event"] == "result" for event in events(StudyDir.of(study).results))


def trial_pids(study: Study) -> dict[int, int]:
    """Trials at work, and the processes that run them."""
    found = {}
    for path in sorted(StudyDir.of(study).trials.glob("trial_*/status.json")):
        status = read_status(path) or {}
        if status.get("state") == "running" and psutil.pid_exists(status["pid"]):
            found[int(path.parent.name.removeprefix("trial_"))] = int(status["pid"])
    return found


def assert_as(calm: Study, study: Study) -> None:
    """Same trials, parameters, values of every epoch, decisions, ends; nothing doubled or lost."""
    ours, theirs = story(study), story(calm)
    for told in (ours, theirs):
        for trial in told.values():
            trial["ends"] = [end for end in trial["ends"] if end[0] != "interrupted"]
    assert ours == theirs
    trials = in_optuna(study)
    assert [t.number for t in trials] == list(theirs)
    assert [t.state.name for t in trials] == [OPTUNA_STATES[theirs[t.number]["ends"][0][0]] for t in trials]
    assert sorted(path.name for path in StudyDir.of(study).trials.iterdir()) == [f"trial_{n:04d}" for n in theirs]
    for number in theirs:
        run = StudyDir.of(study).trial_dir(number)
        rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        epochs = [row["epoch"] for row in rows if "time/epoch_s" in row]
        assert epochs == list(range(1, len(epochs) + 1)), "every epoch stands in a trial's history once"
        assert len(epochs) == theirs[number]["ends"][0][1]
        assert (read_status(run.status) or {})["state"] == theirs[number]["ends"][0][0]


def assert_nothing_doubled(study: Study) -> None:
    """After a kill: what is written down of each trial is written once, and Optuna has no trial that nobody asked."""
    told, folder = story(study), StudyDir.of(study)
    numbers = [trial.number for trial in in_optuna(study)]
    assert numbers == list(range(len(numbers)))
    assert list(told) == numbers[: len(told)], "a trial of the journal is one of Optuna's"
    assert len(numbers) <= len(told) + 1, "one at most is asked and not yet written down"
    assert {path.name for path in folder.trials.glob("*")} <= {f"trial_{number:04d}" for number in told}


def meant_by(output: str) -> StudyDir:
    """The study that the command on the last line goes on with."""
    words = shlex.split(re.findall(r"go on with: (.*)", output)[-1])
    assert "tune resume" in " ".join(words)
    folder = Path(words[words.index("--output-dir") + 1]) if "--output-dir" in words else "outputs"
    return find_study(words[words.index("resume") + 1], folder)


def kill_all(driver: Any) -> None:
    """SIGKILL to the driver alone."""
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()


def wait_for_more(driver: Any, study: Study, than: int) -> None:
    until(lambda: driver.poll() is not None or results(study) > than)


def test_a_killed_driver(tmp_path: Path, calm: Study) -> None:
    study = study_in(tmp_path)
    driver = child(study, sleep_s=SLEEP_S, dry=False)
    until(lambda: results(study) >= 5)
    kill_all(driver)
    assert results(study) < results(calm)
    code, output = ended(child(study, dry=False))  # at once: the old trial's process may still be dying
    assert code == 0, output
    assert_as(calm, study)


def test_a_killed_trial(tmp_path: Path, calm: Study) -> None:
    study = study_in(tmp_path)
    driver = child(study, sleep_s=SLEEP_S, dry=False)
    until(lambda: results(study) >= 4)
    first = until(lambda: trial_pids(study))
    os.kill(next(iter(first.values())), signal.SIGKILL)
    code, output = ended(driver)
    assert code == 0, output
    assert any("its process died" in str(e.get("text")) for e in events(StudyDir.of(study).results))
    assert_as(calm, study)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_driver_that_is_asked_to_stop(tmp_path: Path, calm: Study, number: int, code: int) -> None:
    study = study_in(tmp_path)
    driver = child(study, sleep_s=4 * SLEEP_S, dry=False)
    until(lambda: results(study) >= 5)
    driver.send_signal(number)
    found, output = ended(driver)
    assert found == code, output
    assert meant_by(output).path.samefile(StudyDir.of(study).path)
    status = json.loads(StudyDir.of(study).status.read_text())
    assert status["state"] == "interrupted"
    assert not trial_pids(study)
    states = [t["ends"][-1][0] for t in story(study).values()]
    assert states[-1] == "interrupted"
    found, output = ended(child(study, dry=False))
    assert found == 0, output
    assert_as(calm, study)


def test_a_repetition_that_is_asked_to_stop_goes_on(tmp_path: Path) -> None:
    keys = {"num_trials": 1, "repeat_best": {"top": 1, "seeds": 1}}
    calm, study = study_in(tmp_path / "calm", **keys), study_in(tmp_path / "stopped", **keys)
    code, output = ended(child(calm, dry=False))
    assert code == 0, output
    driver = child(study, sleep_s=4 * SLEEP_S, dry=False)
    run = StudyDir.of(study).repeat_dir(0, 1)
    until(lambda: epochs_done(run.path) >= 3)
    driver.send_signal(signal.SIGTERM)
    found, output = ended(driver)
    assert found == 143, output
    assert (read_status(run.status) or {})["state"] == "interrupted"
    assert run.latest.is_file(), "what goes on needs its newest checkpoint"
    found, output = ended(child(study, dry=False))
    assert found == 0, output
    ours, theirs = (json.loads(StudyDir.of(s).repeats_json.read_text()) for s in (study, calm))
    assert ours == theirs
    assert list(run.checkpoints.glob("*.pth")) == [run.best]
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [row["epoch"] for row in rows if "time/epoch_s" in row] == list(range(1, 10))


def test_two_drivers_at_once(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    driver = child(study, sleep_s=SLEEP_S, dry=False)
    until(lambda: results(study) >= 1)
    code, output = ended(child(study, dry=False))
    assert code != 0
    assert f"study line is being run by process {driver.pid}" in output
    kill_all(driver)


def test_ten_kills_in_a_row_at_any_moment(tmp_path: Path, calm: Study) -> None:
    """The driver, now and then a trial before it, whatever they are doing: asking, training, writing, ending."""
    study = study_in(tmp_path)
    draw = random.Random(5)
    folder_of(study)
    for kill in range(10):
        had = results(study)
        driver = child(study, sleep_s=3 * SLEEP_S, dry=False)
        wait_for_more(driver, study, had)
        time.sleep(draw.uniform(0.0, 0.8))
        if kill % 3 == 2:
            for pid in trial_pids(study).values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(draw.uniform(0.0, 0.8))
        assert driver.poll() is None, f"the study is over before kill {kill + 1}: make its epochs longer"
        kill_all(driver)
        assert_nothing_doubled(study)
    code, output = ended(child(study, dry=False))
    assert code == 0, output
    assert_as(calm, study)


def test_ten_killed_trials_in_a_row(tmp_path: Path, calm: Study) -> None:
    """One driver, which loses the process of the trial at work ten times, at any moment."""
    study = study_in(tmp_path, max_failures=10)
    driver = child(study, sleep_s=3 * SLEEP_S, dry=False)
    draw = random.Random(6)
    for _ in range(10):
        pids = until(lambda: driver.poll() is not None or trial_pids(study))
        assert driver.poll() is None, "the study is over before its last kill: make its epochs longer"
        time.sleep(draw.uniform(0.0, 0.8))
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda old=pids: not any(map(psutil.pid_exists, old.values())))
    code, output = ended(driver)
    assert code == 0, output
    deaths = sum("its process died" in str(e.get("text")) for e in events(StudyDir.of(study).results))
    assert 0 < deaths <= 10, "one that dies between two trials was of none"
    assert_as(calm, study)
