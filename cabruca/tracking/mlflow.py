"""MLflow: one experiment for all runs, one MLflow run a run folder, metrics at the optimizer step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cabruca.config.schema import Config
from cabruca.tracking.guarded import interrupted
from cabruca.tracking.history import read_rows
from cabruca.tracking.mlflow_client import (
    PARENT_TAG,
    REPEAT_TAG,
    SEARCHED,
    STUDY_TAG,
    TRIAL_TAG,
    as_texts,
    experiment_in,
    parts,
    patient,
    quick_mlflow,
    say_where,
    uri_for,
)
from cabruca.tracking.mlflow_model import log_model
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.scalars import best_scalar, finite, flatten, step_scalars
from cabruca.tracking.study_place import StudyPlace
from cabruca.train.protocols import BaseCallback, Record, RunInfo, TrainResult

FOLDER_TAG = "cabruca.run_dir"


def tracking_uri(run_dir: RunDir, config: Config) -> str:
    """Where MLflow keeps the records of a run: as `uri_for`, SQLite beside the run's folder."""
    return uri_for(run_dir.path.absolute().parent, config)


class MLflowTracker(BaseCallback):
    """Sends parameters, metrics, files, the best checkpoint and the model through `MlflowClient`, which keeps no
    global state.

    A resumed run goes on in the MLflow run of its folder, found by the tag `cabruca.run_dir`, and first sends epochs
    that a killed process had saved and not sent. Files are sent when the run ends: configuration, history, log, notes,
    model card, plots, validation pictures, `checkpoint_best`, and that checkpoint once more as a model that
    `mlflow.pyfunc.load_model` loads. A run that is interrupted sends none of them: there is no time for it, and the run
    that goes on will.

    A trial's run lies under its study's, is found again by study and trial, and has what the sampler chose as
    parameters `search.<key>`. It sends no pictures, checkpoint or model: the study sends those of its best trial.
    """

    def __init__(self, run_dir: RunDir, config: Config, within: StudyPlace | None = None) -> None:
        mlflow = quick_mlflow()
        self._entities = mlflow.entities
        self._client_of = mlflow.MlflowClient
        self._run_dir, self._within = run_dir, within
        self._experiment = config.tracking.mlflow_experiment
        self._monitor = config.training.monitor_metric
        self._uri = within.mlflow_uri if within else tracking_uri(run_dir, config)
        self._client: Any = None
        self._experiment_id = ""
        self._run_id = ""

    def on_start(self, info: RunInfo) -> None:
        self._client = self._client_of(tracking_uri=self._uri)
        run = self._run_of_trial(self._within) if self._within else self._run_of_folder(info.resumed_step > 0)
        self._run_id = run.info.run_id
        self._client.set_terminated(self._run_id, "RUNNING")
        self._send_params(info.config, known=run.data.params)
        if self._run_dir.config_yaml.is_file():
            self._client.log_artifact(self._run_id, str(self._run_dir.config_yaml))
        if info.resumed_step:
            send_lost(self._client, self._entities.Metric, self._run_id, self._run_dir, until=info.resumed_step)

    def on_step(self, record: Record) -> None:
        self._send_metrics(step_scalars(record), record.step)

    def on_epoch(self, record: Record) -> None:
        self._send_metrics(finite(record), record.step)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if not self._run_id:
            return
        states = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED"}
        try:
            if result is not None:
                self._send_metrics(best_scalar(result, self._monitor), result.step)
            if not interrupted(result, error):
                with patient():
                    send_records(self._client, self._run_id, self._run_dir)
                    if self._within is None:
                        send_best(self._client, self._experiment_id, self._run_id, self._run_dir)
        finally:
            self._client.set_terminated(self._run_id, states[result.state] if result else "FAILED")
        if self._within is None:
            say_where("this run", self._experiment, self._uri)

    def _run_of_trial(self, place: StudyPlace) -> Any:
        """Also of a trial whose process died before its first checkpoint: one trial is one run."""
        self._experiment_id = place.mlflow_experiment_id
        own = {TRIAL_TAG: str(place.trial)} if place.seed is None else {REPEAT_TAG: f"{place.trial} seed {place.seed}"}
        tags = {STUDY_TAG: place.study_id, **own}
        asked = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self._client.search_runs([self._experiment_id], asked, max_results=1)
        if found:
            return found[0]
        tags |= {PARENT_TAG: str(place.mlflow_parent_run_id), FOLDER_TAG: str(self._run_dir.path.resolve())}
        return self._client.create_run(self._experiment_id, run_name=self._run_dir.name, tags=tags)

    def _run_of_folder(self, resumed: bool) -> Any:
        outputs = self._run_dir.path.absolute().parent
        self._experiment_id = experiment_in(self._client, self._experiment, self._uri, outputs)
        folder = str(self._run_dir.path.resolve())
        if resumed:
            quoted = folder.replace("'", "")
            found = self._client.search_runs([self._experiment_id], f"tags.`{FOLDER_TAG}` = '{quoted}'", max_results=1)
            if found:
                return found[0]
        tags = {FOLDER_TAG: folder.replace("'", "")}
        return self._client.create_run(self._experiment_id, run_name=self._run_dir.name, tags=tags)

    def _send_params(self, config: Mapping[str, Any], known: Mapping[str, str]) -> None:
        searched = self._within.params if self._within else {}
        values = {**flatten(config), **{f"{SEARCHED}{key}": value for key, value in searched.items()}}
        # a parameter cannot be changed once it is written: a resumed run adds only what is new
        params = [self._entities.Param(k, v) for k, v in as_texts(values).items() if k not in known]
        for part in parts(params, 100):  # MLflow's limit
            self._client.log_batch(self._run_id, params=part)

    def _send_metrics(self, scalars: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, step) for name, value in scalars.items()]
        for part in parts(metrics, 1000):
            self._client.log_batch(self._run_id, metrics=part)


def send_lost(client: Any, metric: Callable[..., Any], run_id: str, run_dir: RunDir, *, until: float) -> None:
    """Epochs that a killed process had saved and could not send any more.

    Args:
        metric: makes one of key, value, time in ms, step. until: optimizer step, the last one that counts.
    """
    always = "time/epoch_s"
    rows = [row for row in read_rows(run_dir.metrics) if always in row and row["step"] <= until]
    known = {point.step for point in client.get_metric_history(run_id, always)} if rows else set()
    for row in rows:
        if row["step"] not in known:
            numbers = {name: v for name, v in row.items() if "/" in name and isinstance(v, int | float)}
            at = int(row["time"] * 1000)
            client.log_batch(run_id, metrics=[metric(name, float(v), at, row["step"]) for name, v in numbers.items()])


def send_records(client: Any, run_id: str, run_dir: RunDir) -> None:
    """A run's small files and its plots."""
    small = (run_dir.environment, run_dir.metrics, run_dir.history, run_dir.log, run_dir.path / "notes.json")
    for file in (*small, run_dir.model_card):
        if file.is_file():
            client.log_artifact(run_id, str(file))
    _send_folder(client, run_id, run_dir.plots)


def send_best(client: Any, experiment_id: str, run_id: str, run_dir: RunDir) -> str | None:
    """Validation pictures, the best checkpoint and its model; the id of that, as `log_model`."""
    _send_folder(client, run_id, run_dir.predictions)
    for file in (run_dir.best, run_dir.best.with_suffix(".json")):
        if file.is_file():
            client.log_artifact(run_id, str(file), run_dir.checkpoints.name)
    return log_model(client, experiment_id, run_id, run_dir)


def _send_folder(client: Any, run_id: str, folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        client.log_artifacts(run_id, str(folder), folder.name)
