"""A study's trials in one process, one after the other: each tracker has one record a trial, and never mixes two."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_helpers import rows
from tracked_study import METRIC, BrokenLine, ByHand, NoLine, line_study
from tracker_reading import (
    hparams_tab,
    mlflow_client,
    mlflow_files,
    mlflow_points,
    mlflow_runs,
    sqlite_uri,
    tensorboard_points,
    wandb_points,
    wandb_records,
)

from cabruca.tracking.status import read_status
from cabruca.train.protocols import BaseCallback, Record

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")

ALL = {"tensorboard": True, "mlflow": True, "wandb": True}

RATES = {0: 0.05, 1: 0.02, 2: 0.01, 3: 0.005, 4: 0.001}


class Interrupting(BaseCallback):
    """A scheduler's SIGTERM in the first epoch, before any checkpoint of an epoch."""

    def on_step(self, record: Record) -> None:
        if record.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    """Five trials: whole, interrupted and gone on with in a second session, stopped, failed late, failed at once."""
    before, folder = set(os.environ), tmp_path_factory.mktemp("study")
    first = ByHand(line_study(folder, ALL))
    first.trial(0, RATES[0])
    first.trial(1, RATES[1], callbacks=[Interrupting()])
    first.end(interrupted=True)
    first.journal.close()
    session = ByHand(line_study(folder, ALL, num_trials=5))
    session.trial(1, RATES[1], resume=True)
    session.trial(2, RATES[2], stop=True)
    session.trial(3, RATES[3], BrokenLine)
    session.trial(4, RATES[4], NoLine)
    session.folder.leaderboard.write_text("trial\n0\n")
    session.folder.report.write_text("<html></html>")
    session.verified = session.end()  # type: ignore[attr-defined]
    yield session
    for name in set(os.environ) - before:
        os.environ.pop(name)


def runs_of(study: ByHand) -> dict[str, Any]:
    return {run.info.run_name: run for run in mlflow_runs(uri_of(study))}


def uri_of(study: ByHand) -> str:
    return sqlite_uri(Path(study.study.base.output_dir))


def written(study: ByHand, number: int) -> list[tuple[int, float]]:
    """The monitored metric by step, as the trial's own folder has it."""
    return [(r["step"], r[METRIC]) for r in rows(study.folder.trial_dir(number).metrics) if METRIC in r]


def wandb_files(study: ByHand, number: int) -> list[Path]:
    return sorted(study.folder.trial_dir(number).path.glob("wandb/offline-run-*/*.wandb"))


def test_mlflow_has_one_run_around_one_run_a_trial(study: ByHand) -> None:
    runs = runs_of(study)
    assert len(mlflow_runs(uri_of(study))) == 6
    parent = runs.pop("lines")
    assert sorted(runs) == [f"trial_000{k}" for k in range(5)]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    states = {name: run.info.status for name, run in runs.items()}
    assert list(states.values()) == ["FINISHED", "FINISHED", "KILLED", "FAILED", "FAILED"]
    assert parent.info.status == "FINISHED"
    assert runs["trial_0003"].data.tags["cabruca.reason"] == "the line broke"
    assert runs["trial_0004"].data.tags["cabruca.reason"] == "no room for the network"


def test_parameters_are_those_of_the_trial(study: ByHand) -> None:
    runs = runs_of(study)
    for number, rate in RATES.items():
        params = runs[f"trial_000{number}"].data.params
        assert json.loads(params["search.optimizer.lr"]) == rate
        if number < 4:
            assert json.loads(params["optimizer.lr"]) == rate
    parent = runs["lines"]
    assert parent.data.params["study.num_trials"] == "4"
    assert parent.data.tags["now.study.num_trials"] == "5", "a parameter cannot be changed, what an extension says can"
    assert json.loads(parent.data.params["search_space.optimizer.lr"]) == {"loguniform": [1e-4, 1e-1]}


def test_the_study_s_run_has_its_numbers_and_files(study: ByHand) -> None:
    parent = runs_of(study)["lines"]
    best = max(value for k in (0, 1, 2, 3) for _, value in written(study, k) if k != 3)
    points = mlflow_points(uri_of(study), parent, "best/val_mAP_50")
    assert points[-1] == (5, pytest.approx(best))
    assert [value for _, value in mlflow_points(uri_of(study), parent, "study/failed")][-1] == 2
    assert mlflow_files(uri_of(study), parent) >= {"leaderboard.csv", "report.html", "study.yaml", "results.jsonl"}


def test_a_trial_sends_no_checkpoint_but_the_best_one(study: ByHand) -> None:
    """20 models of 100 MB each would be sent to be looked at by nobody."""
    values = {k: max(value for _, value in written(study, k)) for k in (0, 1, 2)}
    best = max(values, key=lambda k: values[k])
    runs = runs_of(study)
    assert runs["lines"].data.tags["cabruca.best_trial"] == str(best)
    for number in (0, 1, 2, 3):
        files = mlflow_files(uri_of(study), runs[f"trial_000{number}"])
        assert ("checkpoints/checkpoint_best.pth" in files) == (number == best)
        assert {"config.yaml", "metrics.jsonl", "train.log"} <= files


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_each_tracker_has_the_trial_s_own_numbers_and_no_others(study: ByHand, number: int) -> None:
    expected = written(study, number)
    assert [step for step, _ in expected] == ([6, 12] if number < 2 else [6])
    run = runs_of(study)[f"trial_000{number}"]
    by_wandb = [point for file in wandb_files(study, number) for point in wandb_points(file).get(METRIC, [])]
    by_tensorboard = tensorboard_points(study.folder.trial_dir(number).tensorboard)[METRIC]
    for found in (mlflow_points(uri_of(study), run, METRIC), by_wandb, by_tensorboard):
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-5)


def test_wandb_has_one_group_and_one_run_a_trial(study: ByHand) -> None:
    ids = {}
    for number in (0, 1, 2, 3):
        records = [record.run for file in wandb_files(study, number) for record in wandb_records(file)]
        runs = [run for run in records if run.run_id]
        assert {(run.display_name, run.run_group, run.job_type) for run in runs} == {
            (f"trial_000{number}", "lines", "trial")
        }
        (ids[number],) = {run.run_id for run in runs}
        config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
        assert config["search"]["optimizer.lr"] == RATES[number]
        assert config["optimizer"]["lr"] == RATES[number]
    assert len(set(ids.values())) == 4


def test_tensorboard_lists_every_trial_with_what_was_chosen_for_it(study: ByHand) -> None:
    found = {run.split("/")[0]: (given, metrics) for run, given, metrics in hparams_tab(study.folder.trials)}
    assert sorted(found) == [f"trial_000{k}" for k in range(4)]
    for number in range(4):
        given, metrics = found[f"trial_000{number}"]
        assert given == {"optimizer.lr": RATES[number], "optimizer.weight_decay": 0.0}
        if number < 3:
            best = max(value for _, value in written(study, number))
            assert metrics["best/val_mAP_50"] == pytest.approx(best, rel=1e-6)


def test_runs_are_counted_against_trials(study: ByHand, caplog: pytest.LogCaptureFixture) -> None:
    assert study.verified == {"mlflow": (5, 5), "wandb": (4, 4), "tensorboard": (4, 4)}  # type: ignore[attr-defined]
    told = json.loads((study.folder.path / "trackers.json").read_text())
    assert told["runs"]["mlflow"] == {"there": 5, "trials": 5}
    assert (read_status(study.folder.trial_dir(3).status) or {})["state"] == "failed"


def test_a_run_that_is_missing_and_one_too_many_are_told_with_numbers(
    study: ByHand, caplog: pytest.LogCaptureFixture
) -> None:
    """The last test of this file: it takes a run away."""
    client, runs = mlflow_client(uri_of(study)), runs_of(study)
    client.delete_run(runs["trial_0000"].info.run_id)
    twice = runs["trial_0002"]
    client.create_run(twice.info.experiment_id, run_name="trial_0002", tags=dict(twice.data.tags))
    (wandb,) = (study.folder.trial_dir(2).path / "wandb").glob("offline-run-*")
    wandb.rename(wandb.with_name("gone"))
    session = ByHand(study.study)
    assert session.end() == {"mlflow": (5, 5), "wandb": (3, 4), "tensorboard": (4, 4)}
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "MLflow has 5 runs for 5 trials (trial 0 has 0, trial 2 has 2); the trials' folders have the rest",
        "W&B has 3 runs for 4 trials (trial 2 has 0); the trials' folders have the rest",
    ]
