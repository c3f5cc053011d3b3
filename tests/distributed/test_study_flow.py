"""A study of line fits, from its file to the configuration of its winner."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray_tasks import FineLine
from study_line import folder_of, line_study, run, story

from cabruca.config.load import load_config
from cabruca.config.study import Study
from cabruca.errors import RunError
from cabruca.run import run_training
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import read

pytestmark = pytest.mark.usefixtures("cluster")

STATES = {"finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that nothing disturbed."""
    study = line_study(tmp_path_factory.mktemp("done"))
    assert run(study).state == "finished"
    return study


def ends(study: Study) -> dict[int, str]:
    return {number: trial["ends"][-1][0] for number, trial in story(study).items()}


def in_optuna(study: Study) -> list[optuna.trial.FrozenTrial]:
    found = optuna.load_study(study_name=None, storage=f"sqlite:///{StudyDir.of(study).optuna_db}")
    return found.get_trials()


def test_asha_stops_trials_at_its_rungs_and_every_trial_ends(done: Study) -> None:
    told = story(done)
    assert list(told) == list(range(6))
    for trial in told.values():
        ((state, epoch, values),) = trial["ends"]
        assert list(trial["values"]) == list(range(1, epoch + 1))
        assert values == [max(trial["values"].values())]
        if state == "finished":
            assert epoch == 9
        else:
            assert (state, trial["decided"]) == ("stopped", (epoch, epoch))
            assert epoch in (1, 3)
    assert {"finished", "stopped"} == set(ends(done).values())


def test_optuna_knows_every_trial_once_and_as_it_ended(done: Study) -> None:
    trials = in_optuna(done)
    told = story(done)
    assert [t.number for t in trials] == list(told)
    assert [t.state.name for t in trials] == [STATES[state] for state in ends(done).values()]
    for trial in trials:
        assert trial.params == pytest.approx(told[trial.number]["params"])
        assert trial.intermediate_values == pytest.approx(told[trial.number]["values"])


def test_the_folder_holds_the_trials_as_runs_and_no_leavings(done: Study) -> None:
    folder = StudyDir.of(done)
    states = {n: json.loads((folder.trial_dir(n).status).read_text())["state"] for n in range(6)}
    assert states == ends(done)
    assert not folder.scratch.exists()
    assert not (folder.path / ".dry").exists()
    assert json.loads(folder.status.read_text())["state"] == "finished"
    assert folder.estimate.is_file()
    assert folder.report.is_file()
    rows = list(csv.reader(folder.leaderboard.read_text().splitlines()))
    assert len(rows) == 7


def test_checkpoints_of_the_best_alone_are_kept(done: Study) -> None:
    folder = StudyDir.of(done)
    kept = {n for n in range(6) if list(folder.trial_dir(n).checkpoints.glob("*.pth"))}
    ranked = [trial.number for trial in read(folder.results).ranked(done)]
    assert kept == set(ranked[:3])


def test_the_best_configuration_repeats_the_winner(done: Study, tmp_path: Path) -> None:
    folder = StudyDir.of(done)
    config = load_config(folder.best_config, {"output_dir": str(tmp_path), "experiment_name": "again"})
    result = run_training(config, task_factory=FineLine, quiet=True)
    best = read(folder.results).best(done)
    assert best is not None
    assert best.values == (result.best,)


def test_one_trial_at_a_time_and_a_seed_give_the_same_study_twice(done: Study, tmp_path: Path) -> None:
    twin = line_study(tmp_path)
    run(twin, dry=False)
    assert story(twin) == story(done)


@pytest.mark.slow
def test_a_finished_study_is_lengthened_as_if_it_had_been_so_long(done: Study, tmp_path: Path) -> None:
    short = line_study(tmp_path, num_trials=4)
    run(short, dry=False)
    assert len(story(short)) == 4
    config = short.config.model_copy(update={"num_trials": 6})
    assert run(replace(short, config=config), dry=False).state == "finished"
    assert story(short) == story(done)
    assert StudyDir.of(short).load().config.num_trials == 6


def test_a_finished_study_has_nothing_left_to_do(done: Study) -> None:
    before = story(done)
    assert run(done).state == "finished"
    assert story(done) == before


def test_a_second_driver_is_refused(done: Study) -> None:
    with folder_of(done).lock(), pytest.raises(RunError, match="is being run by process"):
        run(done)


@pytest.mark.slow
def test_other_choices_go_on_in_a_wider_study(tmp_path: Path) -> None:
    own: dict[str, Any] = {"data.batch_size": {"choice": [2, 4]}, "optimizer.lr": {"uniform": [0.01, 0.02]}}
    space = {**own, "optimizer.type": {"choice": ["adamw", "adam"]}}
    fast = {"max_epochs": 1, "scheduler": {"type": "none"}, "num_trials": 2}
    narrow = line_study(tmp_path, search_space=space, **fast)
    run(narrow, dry=False)
    own["optimizer.lr"] = {"uniform": [0.01, 0.1]}
    space = {**own, "optimizer.type": {"choice": ["adamw", "adam", "sgd"]}, "data.batch_size": {"choice": [4, 8]}}
    wide = line_study(tmp_path, search_space=space, **{**fast, "num_trials": 12})
    assert run(wide, dry=False).state == "finished"
    told = story(wide)
    assert list(told) == list(range(12))
    assert "sgd" in {told[n]["params"]["optimizer.type"] for n in range(2, 12)}
    names = optuna.get_all_study_names(f"sqlite:///{StudyDir.of(wide).optuna_db}")
    newest = optuna.load_study(study_name=max(names), storage=f"sqlite:///{StudyDir.of(wide).optuna_db}")
    assert [t.number for t in newest.trials] == list(range(12))
    for trial in newest.trials[:2]:  # what is no choice any more is left out
        kept = {k: v for k, v in told[trial.number]["params"].items() if (k, v) != ("data.batch_size", 2)}
        assert trial.params == kept
