"""A process that serves one trial after the other: what an earlier one has left open stays apart from the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tracked_study import METRIC, ByHand, line_study
from tracker_reading import mlflow_points, mlflow_runs, sqlite_uri, tensorboard_points, wandb_points

from cabruca.config.study import trial_config
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.trackers import TRACKERS
from cabruca.train.protocols import Callback, Record, RunInfo, TrainResult

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")

ALL = {"tensorboard": True, "mlflow": True, "wandb": True}
INFO = RunInfo(2, 3, 4, 4, "cpu", "fp32", 10, 0, 0, {"optimizer": {"lr": 0.1}})
RESULT = TrainResult("finished", 2, 12, 0.5, 1, {}, "done")


def begun(session: ByHand, name: str, number: int) -> Callback:
    """A trial's tracker, in this thread, that has been started."""
    params = {"optimizer.lr": 0.01 * (number + 1)}
    config = trial_config(session.study, params, number=number, folder=session.folder.trials)
    run_dir = RunDir.create(config.output_dir, config.experiment_name)
    tracker: Callback = TRACKERS[name](run_dir, config, within=session.trackers.place(number, params))
    tracker.on_start(INFO)
    return tracker


def check_apart(folder: Path, name: str) -> None:
    """Trial 0 is taken away without an end, trial 1 runs whole, a late thread of trial 0 still has something to say."""
    session = ByHand(line_study(folder, {**dict.fromkeys(ALL, False), "mlflow": True, name: True}))
    first = begun(session, name, 0)
    first.on_epoch(Record(1, 6, {METRIC: 0.25}))
    second = begun(session, name, 1)
    second.on_epoch(Record(1, 6, {METRIC: 0.5}))
    first.on_epoch(Record(2, 12, {METRIC: 0.375}))
    second.on_epoch(Record(2, 12, {METRIC: 0.75}))
    second.on_end(RESULT, None)
    first.on_epoch(Record(3, 18, {METRIC: 0.4375}))
    first.on_end(None, RuntimeError("taken away"))
    assert points(session, name, 0) == [(6, 0.25), (12, 0.375), (18, 0.4375)]
    assert points(session, name, 1) == [(6, 0.5), (12, 0.75)]


def points(session: ByHand, name: str, number: int) -> list[tuple[int, float]]:
    """What the tracker has of a trial."""
    run_dir = session.folder.trial_dir(number)
    if name == "tensorboard":
        return tensorboard_points(run_dir.tensorboard)[METRIC]
    if name == "wandb":
        return [p for file in run_dir.path.glob("wandb/offline-run-*/*.wandb") for p in wandb_points(file)[METRIC]]
    uri = sqlite_uri(Path(session.study.base.output_dir))
    (run,) = [run for run in mlflow_runs(uri) if run.info.run_name == run_dir.name]
    return mlflow_points(uri, run, METRIC)


@pytest.mark.parametrize("name", ALL)
def test_two_trials_that_are_open_in_one_process_stay_apart(name: str, tmp_path: Path) -> None:
    check_apart(tmp_path, name)


def test_with_wandb_s_global_run_they_would_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What W&B does unless it is told: the second trial is given the first one's run."""
    import wandb

    real = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **given: real(**{**given, "reinit": "return_previous"}))
    with pytest.raises((AssertionError, KeyError, wandb.errors.UsageError)):
        check_apart(tmp_path, "wandb")


def test_a_trial_that_dies_before_its_first_checkpoint_is_one_run(tmp_path: Path) -> None:
    """By its folder's checkpoint alone the second attempt would look like a new run."""
    session = ByHand(line_study(tmp_path, {"mlflow": True, "tensorboard": False}))
    for _ in range(2):  # the second attempt is another process: nothing is handed on
        params: dict[str, Any] = {"optimizer.lr": 0.01}
        config = trial_config(session.study, params, number=0, folder=session.folder.trials)
        run_dir = session.folder.trial_dir(0)
        run_dir.path.mkdir(parents=True, exist_ok=True)
        tracker = TRACKERS["mlflow"](run_dir, config, within=session.trackers.place(0, params))
        tracker.on_start(INFO)
        tracker.on_step(Record(0, 2, {"train/total_loss": 1.0}))
    uri = sqlite_uri(Path(session.study.base.output_dir))
    assert [run.info.run_name for run in mlflow_runs(uri)] == ["lines", "trial_0000"]


def test_a_repetition_with_another_seed_is_no_trial(tmp_path: Path) -> None:
    session = ByHand(line_study(tmp_path, {"mlflow": True, "tensorboard": False}))
    session.trial(0, 0.01)
    for seed in (1, 2):
        place = session.trackers.place(0, {}, seed=seed)
        run_dir = session.folder.repeat_dir(0, seed)
        run_dir.path.mkdir(parents=True)
        config = trial_config(session.study, {}, number=0, folder=session.folder.trials)
        tracker = TRACKERS["mlflow"](run_dir, config, within=place)
        tracker.on_start(INFO)
        tracker.on_end(RESULT, None)
    assert session.end() == {"mlflow": (1, 1)}
    runs = mlflow_runs(sqlite_uri(Path(session.study.base.output_dir)))
    names = [run.info.run_name for run in runs]
    assert names == ["lines", "trial_0000", "trial_0000_seed_1", "trial_0000_seed_2"]
    parent = runs[0].info.run_id
    assert [run.data.tags.get("mlflow.parentRunId") for run in runs] == [None, parent, parent, parent]
    ids = {session.trackers.place(0, {}, seed=seed).wandb_id for seed in (None, 1, 2)}
    assert len(ids) == 3


def test_a_study_of_the_same_name_begun_anew_is_another(tmp_path: Path) -> None:
    """Its folder was deleted; MLflow and W&B still have the old trials, which have the same names and folders."""
    import shutil

    ids = []
    for _ in range(2):
        session = ByHand(line_study(tmp_path, {"mlflow": True, "tensorboard": False}))
        session.trial(0, 0.01)
        ids.append(session.trackers.place(0, {}).wandb_id)
        session.journal.close()
        assert session.end() == {"mlflow": (1, 1)}
        shutil.rmtree(session.folder.path)
    assert len(set(ids)) == 2
    runs = mlflow_runs(sqlite_uri(Path(session.study.base.output_dir)))
    parents = {run.info.run_id for run in runs if run.info.run_name == "lines"}
    children = [run.data.tags["mlflow.parentRunId"] for run in runs if run.info.run_name == "trial_0000"]
    assert len(parents) == 2
    assert set(children) == parents
