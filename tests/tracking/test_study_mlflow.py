"""A study and its MLflow: a server that is not there costs one warning, the best trial's model is registered once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from drawn_farm import farm_settings, write_farm
from predecessor_files import nested
from run_helpers import rows
from tracked_study import METRIC, ByHand, line_study, study_folder
from tracker_reading import mlflow_client, mlflow_points, mlflow_runs, sqlite_uri

from cabruca.config.study import Study, load_study, trial_config
from cabruca.task import CabrucaTask
from cabruca.tracking import study_trackers as study_trackers_module
from cabruca.tracking.mlflow import MLflowTracker
from cabruca.tracking.study_events import Journal
from cabruca.tracking.study_trackers import StudyTrackers
from cabruca.tracking.trackers import TRACKERS, trackers_of
from cabruca.train import checkpoint
from cabruca.train.protocols import Record, RunInfo, TrainResult

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")

INFO = RunInfo(1, 6, 2, 2, "cpu", "fp32", 10, 0, 0, {})


@pytest.mark.parametrize("kind", ["dead", "mute"])
def test_a_server_that_is_not_there_costs_one_warning_for_the_whole_study(
    tmp_path: Path, kind: str, mute_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow  # noqa: F401  the import's seconds are not the server's

    monkeypatch.setattr(study_trackers_module, "OPEN_S", 2.0)
    uri = "http://me:hunter2@127.0.0.1:9" if kind == "dead" else mute_server
    began = time.monotonic()
    session = ByHand(line_study(tmp_path, {"mlflow": True, "mlflow_uri": uri, "tensorboard": False}))
    for number in (0, 1):
        assert session.trial(number, 0.01) is not None
    assert session.end() == {}
    assert time.monotonic() - began < 15
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("tracker mlflow is switched off for this study (")
    assert "hunter2" not in warning
    place = session.trackers.place(2, {})
    config = trial_config(session.study, {}, number=2, folder=tmp_path)
    names = [tracker.name for tracker in trackers_of(session.folder.trial_dir(2), config, within=place)]  # type: ignore[attr-defined]
    assert "mlflow" not in names, "no trial tries it again"


def test_one_that_breaks_while_the_study_goes_on_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = ByHand(line_study(tmp_path, {"mlflow": True, "tensorboard": False}))

    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionError("the other side is gone")

    session.trial(0, 0.01)
    monkeypatch.setattr(mlflow_client(session.trackers.place(0, {}).mlflow_uri).__class__, "log_batch", broken)
    session.trial(1, 0.02)
    session.end()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2, "that of the trial, that of the study"
    assert all("is switched off for this run (the other side is gone)" in warning for warning in warnings)
    assert session.journal.state.count("finished") == 2


def test_an_interrupted_study_waits_for_nothing_and_goes_on_in_its_run(tmp_path: Path) -> None:
    study = line_study(tmp_path, {"mlflow": True, "tensorboard": False})
    session = ByHand(study)
    session.trial(0, 0.01)
    session.folder.report.write_text("<html></html>")
    assert session.end(interrupted=True) == {}
    uri = sqlite_uri(Path(study.base.output_dir))
    (parent,) = [run for run in mlflow_runs(uri) if run.info.run_name == "lines"]
    assert parent.info.status == "KILLED"
    assert mlflow_client(uri).list_artifacts(parent.info.run_id) == []
    session.journal.close()
    again = ByHand(study)
    assert again.trackers.place(0, {}) == session.trackers.place(0, {})
    assert again.end() == {"mlflow": (1, 1)}
    (parent,) = [run for run in mlflow_runs(uri) if run.info.run_name == "lines"]
    assert parent.info.status == "FINISHED"


def test_a_run_that_a_killed_process_left_open_is_closed(tmp_path: Path) -> None:
    """The trial was killed too often: its own tracker cannot say any more that it failed."""
    session = ByHand(line_study(tmp_path, {"mlflow": True, "tensorboard": False}))
    params = {"optimizer.lr": 0.01}
    config = trial_config(session.study, params, number=0, folder=session.folder.trials)
    run_dir = session.folder.trial_dir(0)
    run_dir.path.mkdir(parents=True)
    MLflowTracker(run_dir, config, within=session.trackers.place(0, params)).on_start(INFO)
    event = {"event": "asked", "trial": 0, "params": params}
    session.journal.append(event)
    died = {"event": "ended", "trial": 0, "state": "failed", "epoch": 0, "values": None, "reason": "SIGKILL, 3 times"}
    session.journal.append(died)
    assert session.end() == {"mlflow": (1, 1)}
    runs = {run.info.run_name: run for run in mlflow_runs(sqlite_uri(Path(session.study.base.output_dir)))}
    assert runs["trial_0000"].info.status == "FAILED"
    assert runs["trial_0000"].data.tags["cabruca.reason"] == "SIGKILL, 3 times"


class Deaf(MLflowTracker):
    """Its process is killed with the second epoch saved and not sent."""

    def on_epoch(self, record: Record) -> None:
        if record.epoch < 2:
            super().on_epoch(record)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        pass


@pytest.mark.parametrize("resumes", [True, False], ids=["the trial goes on", "it had been the last epoch"])
def test_an_epoch_that_a_killed_process_had_not_sent_is_sent_later(
    tmp_path: Path, resumes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ByHand(line_study(tmp_path, {"mlflow": True, "tensorboard": False}))
    with monkeypatch.context() as patch:
        patch.setitem(TRACKERS, "mlflow", Deaf)
        session.trial(0, 0.01)
    if resumes:
        session = ByHand(line_study(tmp_path, {"mlflow": True, "tensorboard": False}, max_epochs=3))
        session.trial(0, 0.01, resume=True)
    session.end()
    uri = sqlite_uri(Path(session.study.base.output_dir))
    (run,) = [run for run in mlflow_runs(uri) if run.info.run_name == "trial_0000"]
    own = [(r["step"], r[METRIC]) for r in rows(session.folder.trial_dir(0).metrics) if METRIC in r]
    assert len(own) == 2 + resumes
    assert mlflow_points(uri, run, METRIC) == own


def crown_study(folder: Path) -> Study:
    """A study of the real, small network on a drawn farm."""
    farm = write_farm(folder / "farm", pictures=2)
    base = nested(farm_settings(farm, folder / "outputs") | {"tracking.mlflow": True, "tracking.tensorboard": False})
    raw = {"name": "crowns", "config": "base.yaml", "metric": METRIC, "mode": "max", "max_epochs": 1}
    raw |= {"search_space": {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}}}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "crowns.yaml").write_text(yaml.safe_dump(raw))
    return load_study(folder / "crowns.yaml")


def finish(study: Study, number: int, value: float) -> None:
    """A session in which a trial ends with the checkpoint of a network; the network is not trained."""
    folder = study_folder(study)
    trackers = StudyTrackers(study, folder)
    trackers.begin()
    params = {"optimizer.lr": 1e-3}
    config = trial_config(study, params, number=number, folder=folder.trials)
    run_dir, task = folder.trial_dir(number), CabrucaTask(config)
    run_dir.checkpoints.mkdir(parents=True, exist_ok=True)
    state = {"model": dict(task.build_model().state_dict()), "config": config.to_dict(), "task": task.state()}
    state |= {"optimizer": {"moments": torch.zeros(10)}, "epoch": 1, "step": 6}
    checkpoint.write(run_dir.best, state, metric=value)
    tracker = MLflowTracker(run_dir, config, within=trackers.place(number, params))
    tracker.on_start(INFO)
    tracker.on_end(TrainResult("finished", 1, 6, value, 1, {}, "done"), None)
    with Journal(folder.results) as journal:
        journal.append({"event": "asked", "trial": number, "params": params})
        result = {"epoch": 1, "step": 6, "metrics": {METRIC: value}, "elapsed_s": 1.0, "memory_mb": 1.0}
        journal.append({"event": "result", "trial": number, **result})
        ending = {"state": "finished", "epoch": 1, "values": [value], "reason": "done"}
        journal.append({"event": "ended", "trial": number, **ending})
        for _ in range(2):  # a study that ends again has nothing new to register
            trackers.end(journal.state)
            trackers.begin()
        trackers.end(journal.state)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The output folder of a study of three sessions: a first trial, a worse one, a better one."""
    before, folder = set(os.environ), tmp_path_factory.mktemp("crowns")
    study = crown_study(folder)
    for number, value in enumerate((0.5, 0.25, 0.75)):
        finish(study, number, value)
    yield folder / "outputs"
    for name in set(os.environ) - before:
        os.environ.pop(name)


def test_the_best_trial_s_model_is_registered_once_under_the_study_s_name(registered: Path) -> None:
    versions = mlflow_client(sqlite_uri(registered)).search_model_versions("name = 'crowns'")
    runs = {run.info.run_id: run.info.run_name for run in mlflow_runs(sqlite_uri(registered))}
    found = sorted((int(v.version), runs[v.run_id], v.tags["cabruca.trial"], v.status) for v in versions)
    assert found == [(1, "trial_0000", "0", "READY"), (2, "trial_0002", "2", "READY")]
    for version in versions:
        folder = Path(version.source.removeprefix("file://"))
        assert (folder / "MLmodel").is_file()
        assert registered in folder.parents


LOAD = """
import sys, mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
print(len(model.predict(numpy.zeros((1, 3, 64, 64), "float32"), params={"score_threshold": 0.9}).columns))
"""


@pytest.mark.slow
def test_a_registered_model_loads_by_the_study_s_name(registered: Path) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": sqlite_uri(registered)}
    command = [sys.executable, "-c", LOAD, "models:/crowns/2"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.split()[-1:] == ["9"], done.stderr


TRIAL = """
import sys
from pathlib import Path
from run_helpers import LineTask
from tracked_study import line_study
from cabruca.config.study import trial_config
from cabruca.run import run_training
from cabruca.tracking.study_place import StudyPlace
folder, number, parent, uri, experiment = sys.argv[1:]
study = line_study(Path(folder), {"mlflow": True, "tensorboard": False}, max_epochs=20)
params = {"optimizer.lr": 0.01}
place = StudyPlace("lines", "id", int(number), params, parent, uri, experiment, "lines")
config = trial_config(study, params, number=int(number), folder=Path(folder) / "trials")
run_training(config, task_factory=LineTask, quiet=True, within=place)
"""


@pytest.mark.slow
def test_trials_of_several_processes_write_into_one_data_base(tmp_path: Path) -> None:
    """SQLite lets one write at a time: the others wait, nothing is lost."""
    session = ByHand(line_study(tmp_path / "a", {"mlflow": True, "tensorboard": False}))
    place = session.trackers.place(0, {})
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tests, tests / "support")))}
    children = []
    for number in range(4):
        words = [str(number), str(place.mlflow_parent_run_id), place.mlflow_uri, place.mlflow_experiment_id]
        command = [sys.executable, "-c", TRIAL, str(tmp_path / f"b{number}"), *words]
        children.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    said = [child.communicate(timeout=240)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, said
    assert "switched off" not in "".join(said)
    client = mlflow_client(place.mlflow_uri)
    runs = [run for run in mlflow_runs(place.mlflow_uri) if run.info.run_name != "lines"]
    assert len(runs) == 4
    for run in runs:
        points = client.get_metric_history(run.info.run_id, METRIC)
        assert [point.step for point in points] == [6 * k for k in range(1, 21)]
