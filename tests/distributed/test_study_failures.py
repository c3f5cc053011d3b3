"""What goes wrong in one trial is that trial's failure, with an autopsy; the study goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from study_line import line_study, run, story
from study_tasks import BREAKS, DIES, MISSES, NAN, Fragile

from cabruca.config.study import Study
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import read

pytestmark = pytest.mark.usefixtures("cluster")

LRS = [0.05, BREAKS, NAN, MISSES, DIES, 0.04]


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Study:
    points = [{"optimizer.lr": lr, "optimizer.weight_decay": 0.01} for lr in LRS]
    settings: dict[str, Any] = {"scheduler": {"type": "none"}, "max_failures": 1, "max_epochs": 3}
    study = line_study(tmp_path_factory.mktemp("failing"), points_to_evaluate=points, **settings)
    assert run(study, dry=False, trial=Fragile).state == "finished"
    return study


def test_failures_are_those_of_their_trials_alone(failing: Study) -> None:
    assert {n: t["ends"][-1][0] for n, t in story(failing).items()} == {
        0: "finished", 1: "failed", 2: "failed", 3: "failed", 4: "failed", 5: "finished"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "RuntimeError: the line broke"),
        (2, "NotANumber: val/mAP_50 is nan after epoch 2"),
        (3, "DataError: picture 7 is broken; mend it"),
        (4, "its process died 2 times without a word"),
    ],
)
def test_the_autopsy_says_why(failing: Study, number: int, words: str) -> None:
    folder = StudyDir.of(failing)
    run_dir = folder.trial_dir(number)
    found = json.loads((run_dir.path / "autopsy.json").read_text())
    assert found["exception"].startswith(words)
    assert found["last_metrics"]["epoch"] >= 1
    assert found["memory_peak_mb"] > 10
    assert found["difference_from_best"] == {"optimizer.lr": [LRS[number], 0.05]}
    assert json.loads(run_dir.status.read_text())["state"] == "failed"
    assert read(folder.results).trials[number].reason.startswith(words)


def test_retry_failed_reruns_the_failures_alone(failing: Study) -> None:
    folder = StudyDir.of(failing)
    (folder.trials.parent / "mended").touch()
    before = story(failing)
    assert run(failing, dry=False, trial=Fragile, retry_failed=True).state == "finished"
    told = story(failing)
    assert {n: told[n] for n in before} == before
    again = {n: t for n, t in read(folder.results).trials.items() if n not in before}
    assert sorted((t.retry_of, t.params["optimizer.lr"]) for t in again.values()) == list(enumerate(LRS))[1:5]
    assert {t.retry_of: t.state for t in again.values()} == {1: "finished", 2: "failed", 3: "finished", 4: "finished"}
    run(failing, dry=False, trial=Fragile, retry_failed=True)  # those that failed again: their last repetition
    assert len(story(failing)) == len(told) + 1
