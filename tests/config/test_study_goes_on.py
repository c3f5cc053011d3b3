"""What may differ when a study goes on, and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_files import SPACE, StudyFiles, refusal

from cabruca.config.study_change import check_going_on


@pytest.fixture
def make(tmp_path: Path) -> StudyFiles:
    """Writes and loads studies."""
    return StudyFiles(tmp_path)


WIDER: list[dict[str, Any]] = [
    {"num_trials": 40, "max_concurrent_trials": 4, "time_budget": "3h", "sampler": {"type": "random"}},
    {"search_space": {**SPACE, "optimizer.lr": {"loguniform": [1e-5, 2e-3]}}},
    {"search_space": {**SPACE, "scheduler.T_max": {"choice": [2, 3, 6]}}},
    {"search_space": {**SPACE, "optimizer.weight_decay": {"uniform": [0.0, 0.1]}}},
    {"set": {"tracking.mlflow": True, "device": "cpu", "distributed.address": "auto"}},
    {"metric": "val/mAP_50", "mode": "max"},  # what was meant before, said
]


@pytest.mark.parametrize("keys", WIDER, ids=str)
def test_a_study_may_go_on_with_more(make: StudyFiles, keys: dict[str, Any]) -> None:
    check_going_on(make(), make(**keys))


NARROWER: list[tuple[dict[str, Any], str]] = [
    ({"metric": "val/mAP", "mode": "max"}, 'was begun with metric: ["val/mAP_50"] and is asked for ["val/mAP"]'),
    ({"max_epochs": 12}, "was begun with max_epochs: 9 and is asked for 12, so its trials could not be compared"),
    ({"scheduler": {"type": "none"}}, "was begun with scheduler: {"),
    ({"set": {"training.seed": 1}}, "was begun with the base configuration's training.seed: 4 and is asked for 1"),
    ({"search_space": {"optimizer.lr": SPACE["optimizer.lr"]}}, "search_space.scheduler.T_max is gone"),
    (
        {"search_space": {**SPACE, "optimizer.lr": {"loguniform": [1e-4, 2e-3]}}},
        "search_space.optimizer.lr has lost 5e-05: it was loguniform 5e-05 .. 0.002 and is loguniform 0.0001 .. 0.002",
    ),
    ({"search_space": {**SPACE, "optimizer.lr": {"uniform": [5e-5, 2e-3]}}}, "optimizer.lr is of another kind"),
    ({"search_space": {**SPACE, "scheduler.T_max": {"choice": [3, 9]}}}, "search_space.scheduler.T_max has lost 6"),
]


@pytest.mark.parametrize(("keys", "line"), NARROWER, ids=[line[:40] for _, line in NARROWER])
def test_a_study_may_not_go_on_as_another(make: StudyFiles, keys: dict[str, Any], line: str) -> None:
    before = make()
    assert line in refusal(check_going_on, before, make(**keys))


def test_a_condition_may_hold_more_often_and_not_less(make: StudyFiles) -> None:
    def where(*values: int) -> dict[str, Any]:
        decay = {"when": {"scheduler.T_max": list(values)}, "uniform": [0.0, 0.1]}
        return {"search_space": {**SPACE, "optimizer.weight_decay": decay}}

    check_going_on(make(**where(3)), make(**where(3, 6)))
    line = "search_space.optimizer.weight_decay exists no longer where scheduler.T_max is 6; trials"
    assert line in refusal(check_going_on, make(**where(3, 6)), make(**where(3)))
