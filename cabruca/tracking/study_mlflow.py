"""A study in MLflow: one run around the runs of its trials, the best trial's model in the registry under its name."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cabruca.config.redact import redact
from cabruca.config.study import Study
from cabruca.tracking.mlflow import FOLDER_TAG, send_best, send_lost
from cabruca.tracking.mlflow_client import (
    PARENT_TAG,
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
from cabruca.tracking.mlflow_model import NAME
from cabruca.tracking.scalars import flatten
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_state import StudyState, TrialState
from cabruca.train.protocols import BaseCallback, Record, TrainResult

ENDINGS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
"""State of a trial -> status of its MLflow run, as the trial's own tracker says it."""

REASON_TAG, BEST_TAG, EPOCH_TAG = "cabruca.reason", "cabruca.best_trial", "cabruca.best_epoch"

_log = logging.getLogger("cabruca.tracking")


class StudyRun(BaseCallback):
    """The study's own run and, when the study ends, what its trials could not do for themselves.

    Its hooks are called by a `Guarded`; `on_epoch` takes the study's numbers, at the number of trials that have ended.

    Attributes:
        run_id: "" before `open`. final: the study as it ended, to be set before `on_end`; None of an interrupted one.
        found: trial -> number of its runs, once that was looked up.
    """

    def __init__(self, study: Study, study_dir: StudyDir, study_id: str) -> None:
        mlflow = quick_mlflow()
        self._entities, self._client_of = mlflow.entities, mlflow.MlflowClient
        self._study, self._study_dir, self._study_id = study, study_dir, study_id
        self._outputs = Path(study.base.output_dir).absolute()
        self.uri = _absolute(uri_for(self._outputs, study.base))
        self._client: Any = None
        self.experiment_id = ""
        self.run_id = ""
        self.final: StudyState | None = None
        self.found: dict[int, int] | None = None

    def open(self) -> None:
        """Make the run, or find that of the study which goes on.

        Raises:
            Exception: whatever MLflow raises.
        """
        self._client = self._client_of(tracking_uri=self.uri)
        experiment = self._study.base.tracking.mlflow_experiment
        self.experiment_id = experiment_in(self._client, experiment, self.uri, self._outputs)
        name, tags = self._study.config.name, {STUDY_TAG: self._study_id}
        known = [run for run in self._runs() if PARENT_TAG not in run.data.tags]
        run = known[0] if known else self._client.create_run(self.experiment_id, run_name=name, tags=tags)
        self._client.set_terminated(run.info.run_id, "RUNNING")
        self._send_params(run)
        self.run_id = run.info.run_id

    def on_epoch(self, record: Record) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, record.step) for name, value in record.metrics.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        try:
            if self.final is not None:
                with patient():
                    self._complete(self.final)
        finally:
            self._client.set_terminated(self.run_id, "KILLED" if self.final is None else "FINISHED")
        say_where(
            f"study {self._study.config.name}, a run around those of its trials,",
            self._study.base.tracking.mlflow_experiment,
            self.uri,
        )

    def _complete(self, state: StudyState) -> None:
        self._send_files()
        by_trial = self._runs_by_trial()
        for trial in to_account_for(state):
            by_trial.setdefault(trial.number, []).extend(self._mended(trial, by_trial.get(trial.number, [])))
        self.found = {number: len(runs) for number, runs in by_trial.items()}
        best = state.best(self._study)
        if best is not None and by_trial.get(best.number):
            self._send_winner(best, by_trial[best.number][0])

    def _send_params(self, run: Any) -> None:
        """The study's settings. A parameter cannot be changed once it is written: what an extended study has changed
        is written down as a tag."""
        config: dict[str, Any] = redact(self._study.config.model_dump(mode="json"))
        space = {f"search_space.{key}": spec for key, spec in config.pop("search_space").items()}
        values = as_texts({**{f"study.{key}": value for key, value in flatten(config).items()}, **space})
        known = run.data.params
        params = [self._entities.Param(name, text) for name, text in values.items() if name not in known]
        for part in parts(params, 100):
            self._client.log_batch(run.info.run_id, params=part)
        for name, text in values.items():
            if known.get(name, text) != text:
                self._client.set_tag(run.info.run_id, f"now.{name}", text)

    def _send_files(self) -> None:
        study = self._study_dir
        files = (study.study_yaml, study.base_yaml, study.results, study.estimate, study.leaderboard)
        for file in (*files, study.best_config, study.report, study.repeats_json):
            if file.is_file():
                self._client.log_artifact(self.run_id, str(file))

    def _runs(self, more: str = "") -> Iterator[Any]:
        """The study's runs, its own among them."""
        asked, token = f"tags.`{STUDY_TAG}` = '{self._study_id}'{more}", None
        while True:
            page = self._client.search_runs([self.experiment_id], asked, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _runs_by_trial(self) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for run in self._runs():
            if TRIAL_TAG in run.data.tags:
                found.setdefault(int(run.data.tags[TRIAL_TAG]), []).append(run)
        return found

    def _mended(self, trial: TrialState, runs: list[Any]) -> list[Any]:
        """Say for a trial that could not how it ended; a run for one that failed before its training began."""
        made = []
        if not runs and not trial.results:
            tags = {STUDY_TAG: self._study_id, TRIAL_TAG: str(trial.number), PARENT_TAG: self.run_id}
            run_dir = self._study_dir.trial_dir(trial.number)
            tags[FOLDER_TAG] = str(run_dir.path.resolve())
            made.append(self._client.create_run(self.experiment_id, run_name=run_dir.name, tags=tags))
            given = as_texts({f"{SEARCHED}{key}": value for key, value in trial.params.items()})
            params = [self._entities.Param(name, text) for name, text in given.items()]
            self._client.log_batch(made[0].info.run_id, params=params)
        for run in (*runs, *made):
            if run.info.status == "RUNNING":
                run_dir = self._study_dir.trial_dir(trial.number)
                send_lost(self._client, self._entities.Metric, run.info.run_id, run_dir, until=math.inf)
            if trial.ended and run.info.status != ENDINGS[trial.state]:
                self._client.set_terminated(run.info.run_id, ENDINGS[trial.state])
            if trial.state == "failed" and trial.reason:
                self._client.set_tag(run.info.run_id, REASON_TAG, trial.reason[:5000])
        return made

    def _send_winner(self, best: TrialState, run: Any) -> None:
        """The best trial's checkpoint and model, once: also of a study that ends again without a better one."""
        value = best.best(self._study)
        assert value is not None
        of = {STUDY_TAG: self._study_id, TRIAL_TAG: str(best.number), EPOCH_TAG: str(value.epoch)}
        self._client.set_tag(self.run_id, BEST_TAG, str(best.number))
        name = self._study.config.name
        versions = self._client.search_model_versions(f"name = '{name}'")
        if any(of.items() <= version.tags.items() for version in versions):
            return
        run_id = run.info.run_id
        model_id = send_best(self._client, self.experiment_id, run_id, self._study_dir.trial_dir(best.number))
        if model_id is None:  # nothing that MLflow could load
            return
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        # of a server that knows no logged models the model is a folder of the run
        source = self._client.get_logged_model(model_id).artifact_location if model_id else None
        version = self._client.create_model_version(
            name, source or f"{run.info.artifact_uri}/{NAME}", run_id, tags=of, model_id=model_id or None
        )
        _log.info("MLflow's registry has the best trial's model: models:/%s/%s", name, version.version)


def to_account_for(state: StudyState) -> list[TrialState]:
    """Trials that a tracker should know of: those that have ended or reported something."""
    return [trial for trial in state.trials.values() if trial.ended or trial.results]


def study_numbers(state: StudyState, study: Study) -> Mapping[str, float]:
    """What the study's run shows while it goes on: trials by how they ended, and the best values so far."""
    numbers = {f"study/{phase}": float(state.count(phase)) for phase in ("finished", "stopped", "failed")}
    best = state.best(study)
    value = best.best(study) if best is not None else None
    if value is not None:
        numbers |= {f"best/{m.replace('/', '_')}": v for m, v in zip(study.metrics, value.values, strict=True)}
    return numbers


def _absolute(uri: str) -> str:
    """A data base file's address as other processes, with other working directories, need it."""
    start = "sqlite:///"
    relative = uri.startswith(start) and not uri.startswith(f"{start}/") and ":memory:" not in uri
    return f"{start}{Path(uri.removeprefix(start)).absolute().as_posix()}" if relative else uri
