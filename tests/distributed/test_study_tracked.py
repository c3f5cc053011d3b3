"""A study on Ray with every tracker on: trials in processes that are used again, each with a record of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_helpers import rows
from study_line import line_study, run
from tracker_reading import hparams_tab, mlflow_points, mlflow_runs, sqlite_uri, tensorboard_points, wandb_points

from cabruca.config.study import Study
from cabruca.distributed.cluster import Cluster
from cabruca.tracking.study_dir import StudyDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

METRIC = "val/mAP_50"

TRACKING = {"tracking__tensorboard": True, "tracking__mlflow": True, "tracking__wandb": True}


@pytest.fixture(scope="module")
def study(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Four trials one after the other, ASHA, then the best one again with two seeds."""
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
            patch.delenv(name, raising=False)
        found = line_study(
            folder, base=TRACKING, num_trials=4, max_epochs=3, name="tracked", repeat_best={"top": 1, "seeds": 2}
        )
        assert run(found).state == "finished"
    return found


def test_every_trial_has_one_record_in_every_tracker(study: Study) -> None:
    told = json.loads((StudyDir.of(study).path / "trackers.json").read_text())["runs"]
    assert told == {name: {"there": 4, "trials": 4} for name in ("mlflow", "wandb", "tensorboard")}
    runs = mlflow_runs(sqlite_uri(Path(study.base.output_dir)))
    names = [run.info.run_name for run in runs]
    assert [name for name in names if "seed" not in name] == ["tracked", *(f"trial_000{k}" for k in range(4))]
    assert len([name for name in names if "seed" in name]) == 2
    parent = runs[0].info.run_id
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs[1:]} == {parent}
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    listed = hparams_tab(StudyDir.of(study).trials)
    assert sorted(name.split("/")[0] for name, _, _ in listed) == [f"trial_000{k}" for k in range(4)]


@pytest.mark.parametrize("number", range(4))
def test_its_numbers_are_its_own(study: Study, number: int) -> None:
    run_dir = StudyDir.of(study).trial_dir(number)
    expected = [(row["step"], row[METRIC]) for row in rows(run_dir.metrics) if METRIC in row]
    assert expected
    uri = sqlite_uri(Path(study.base.output_dir))
    (own,) = [run for run in mlflow_runs(uri) if run.info.run_name == run_dir.name]
    (file,) = run_dir.path.glob("wandb/offline-run-*/*.wandb")
    for found in (
        mlflow_points(uri, own, METRIC),
        wandb_points(file)[METRIC],
        tensorboard_points(run_dir.tensorboard)[METRIC],
    ):
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-5)


def test_the_trials_shared_a_process(study: Study) -> None:
    """Else this would say nothing about processes that are used again."""
    trials = [StudyDir.of(study).trial_dir(number) for number in range(4)]
    pids = {json.loads(trial.status.read_text())["pid"] for trial in trials}
    assert len(pids) < 4


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_trial_across_workers_is_one_record_too(cluster: Cluster, tmp_path: Path) -> None:
    """Its first worker keeps it, in a process that Ray Train has started inside the trial."""
    base = {**TRACKING, "tracking__wandb": False}
    study = line_study(tmp_path, base=base, num_trials=2, max_epochs=2, name="nested", workers_per_trial=2)
    assert run(study, dry=False).state == "finished"
    told = json.loads((StudyDir.of(study).path / "trackers.json").read_text())["runs"]
    assert told == {name: {"there": 2, "trials": 2} for name in ("mlflow", "tensorboard")}
    runs = mlflow_runs(sqlite_uri(Path(study.base.output_dir)))
    assert [run.info.run_name for run in runs] == ["nested", "trial_0000", "trial_0001"]
    rates = [json.loads(run.data.params["search.optimizer.lr"]) for run in runs[1:]]
    assert rates == [json.loads(run.data.params["optimizer.lr"]) for run in runs[1:]]
    assert len(set(rates)) == 2
