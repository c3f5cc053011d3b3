"""Trials of two workers each, without a dashboard: they stop early by asking, wait for one another, and give back
everything they took. Each study has a process and a cluster of its own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray_line import ended
from study_line import child, line_study, said_at_last, story

from cabruca.config.study import Study
from cabruca.tracking.study_dir import StudyDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KEYS: dict[str, Any] = {"num_trials": 4, "max_epochs": 3}
BASE = {"distributed__dashboard": False}
NOTHING = {"cpus": 0, "groups": [], "processes": []}


def finished(study: Study, **options: Any) -> dict[str, Any]:
    """Run it; what its cluster had at most, and what was left behind."""
    code, output = ended(child(study, dry=False, **options), 300)
    assert code == 0, output
    return said_at_last(output)


def states(study: Study) -> Counter[str]:
    """How the trials ended, in the journal; Optuna and the run folders say the same, of every trial once."""
    told = story(study)
    ends = [trial["ends"][-1][0] for trial in told.values()]
    folder = StudyDir.of(study)
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{folder.optuna_db}").get_trials()
    assert [trial.number for trial in trials] == list(told) == list(range(study.config.num_trials))
    assert [trial.state.name for trial in trials] == [{"finished": "COMPLETE", "stopped": "PRUNED"}[e] for e in ends]
    assert [json.loads(folder.trial_dir(n).status.read_text())["state"] for n in told] == ends
    return Counter(ends)


def test_nested_trials_are_stopped_early_and_give_everything_back(tmp_path: Path) -> None:
    nested = line_study(tmp_path / "nested", base=BASE, workers_per_trial=2, **KEYS)
    assert finished(nested, cpus=2) == {"most_cpus": 2, **NOTHING}
    assert set(states(nested)) == {"finished", "stopped"}
    told = story(nested)
    flat = line_study(tmp_path / "flat", base=BASE, **KEYS)
    finished(flat, cpus=2)
    for number, trial in story(flat).items():
        assert trial["params"] == pytest.approx(told[number]["params"], rel=1e-6)
        assert trial["decided"] == told[number]["decided"]
        assert trial["values"] == pytest.approx(told[number]["values"], rel=1e-6)


def test_two_nested_trials_at_a_time(tmp_path: Path) -> None:
    """Early stops among them, too: ASHA decides as results come in."""
    study = line_study(tmp_path, base=BASE, workers_per_trial=2, max_concurrent_trials=2, **KEYS)
    assert finished(study, cpus=4, sleep_s=0.1) == {"most_cpus": 4, **NOTHING}
    assert set(states(study)) <= {"finished", "stopped"}


def test_workers_of_half_a_cpu(tmp_path: Path) -> None:
    halves = {"workers_per_trial": 2, "max_concurrent_trials": 2, "resources_per_trial": {"cpu": 0.5}}
    study = line_study(tmp_path, base=BASE, **halves, **{**KEYS, "num_trials": 3, "max_epochs": 2})
    assert finished(study, cpus=2, sleep_s=0.1) == {"most_cpus": 2, **NOTHING}
    assert set(states(study)) <= {"finished", "stopped"}


def test_a_nested_trial_waits_for_the_cpus_of_another(tmp_path: Path) -> None:
    """Two trials at a time are asked for, and there is room for one."""
    study = line_study(tmp_path, base=BASE, workers_per_trial=2, max_concurrent_trials=2, **{**KEYS, "max_epochs": 2})
    assert finished(study, cpus=3) == {"most_cpus": 2, **NOTHING}
    assert set(states(study)) == {"finished", "stopped"}
