"""The trackers of a study, seen from the driver: one MLflow run around the trials' runs, one W&B group, and a look at
the end whether every trial has its run.

A tracker that is dead, slow or wrong costs one warning, never the study.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cabruca.commands import command
from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.guarded import Guarded
from cabruca.tracking.secrets import hide
from cabruca.tracking.study_mlflow import StudyRun, study_numbers, to_account_for
from cabruca.tracking.study_place import StudyPlace
from cabruca.train.protocols import NOTICE, Record

if TYPE_CHECKING:
    from cabruca.config.study import Study
    from cabruca.tracking.study_dir import StudyDir
    from cabruca.tracking.study_state import StudyState, TrialState

__all__ = ["StudyPlace", "StudyTrackers"]

FILE = "trackers.json"
"""In the study's folder: the id under which the trackers know the study, and what they had when it ended."""

OPEN_S = 30.0
"""How long the study waits for MLflow before it begins."""

UPLOAD_S = 600.0
"""How long it waits at its end."""

_WANDB_RUN = re.compile(r"(?:offline-)?run-\d+_\d+-([^-]+)")
"""A run's folder, with its id; of two within a second W&B names the other `..-1`."""

_log = logging.getLogger("cabruca.tracking")


class StudyTrackers:
    """Begun before the first trial, ended after the last; of a study that is gone on with, again.

    Args:
        study: `study.base.tracking` says which trackers there are.
    """

    def __init__(self, study: Study, study_dir: StudyDir) -> None:
        self._study, self._study_dir = study, study_dir
        self._id = ""
        self._run: StudyRun | None = None
        self._guarded: Guarded | None = None

    def begin(self) -> None:
        """Open the study's run where MLflow is on, or find it again; waits seconds for a server, never for ever.

        Raises:
            OSError: the study's folder cannot be written.
        """
        self._id = self._known_id()
        if self._study.base.tracking.mlflow:
            self._run = run = self._opened()
            self._guarded = Guarded("mlflow", lambda: run, patience_s=UPLOAD_S) if run is not None else None

    def place(self, number: int, params: Mapping[str, Any], *, seed: int | None = None) -> StudyPlace:
        """What the trial's process is given, for `run_training(..., within=...)`; asks nobody.

        Args:
            seed: of a repetition of the trial, which counts as no trial.
        """
        name, run = self._study.config.name, self._run
        place = StudyPlace(name, self._id, number, dict(params), wandb_group=name, seed=seed)
        if run is None:
            return place
        return replace(
            place, mlflow_parent_run_id=run.run_id, mlflow_uri=run.uri, mlflow_experiment_id=run.experiment_id
        )

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None:
        """Note how the study stands in its run; returns at once. A watcher's method."""
        if self._guarded is not None and event.get("event") == "ended":
            ended = state.count("finished", "stopped", "failed")
            self._guarded.on_epoch(Record(ended, ended, dict(study_numbers(state, self._study))))

    def on_end(self, result: Any) -> None:
        """Nothing: the driver calls `end`, when the study's files are written."""

    def end(self, state: StudyState, *, interrupted: bool = False) -> dict[str, tuple[int, int]]:
        """Send leaderboard, report and best configuration, register the best trial's model, look whether every trial
        has its run. The files are those of the study's folder: they should be there by now.

        Args:
            interrupted: somebody waits for the end: nothing large is sent, nothing is looked up.

        Returns:
            Tracker -> how many runs of trials it has, and how many it should have.
        """
        if self._guarded is not None and self._run is not None:
            self._run.final = None if interrupted else state
            self._guarded.on_end(None, KeyboardInterrupt() if interrupted else None)
        if interrupted:
            return {}
        verified = self._verify(state)
        self._write({"study_id": self._id, "runs": {n: {"there": a, "trials": b} for n, (a, b) in verified.items()}})
        self._say_how_to_look(verified)
        return verified

    def _known_id(self) -> str:
        """Written down before the first tracker hears of it: a driver that is killed then finds its run again."""
        try:
            known = json.loads((self._study_dir.path / FILE).read_text(encoding="utf-8"))
            return str(known["study_id"])
        except (OSError, ValueError, KeyError, TypeError):
            fresh = uuid.uuid4().hex
            self._write({"study_id": fresh})
            return fresh

    def _write(self, facts: Mapping[str, Any]) -> None:
        write_atomic(self._study_dir.path / FILE, to_json(facts, indent=1) + "\n")

    def _opened(self) -> StudyRun | None:
        try:
            run = StudyRun(self._study, self._study_dir, self._id)
            _in_time(run.open, OPEN_S)
        except Exception as error:
            reason = hide((str(error).strip() or type(error).__name__).splitlines()[0][:200])
            text = "tracker mlflow is switched off for this study (%s); the study goes on, its folder has its records"
            _log.warning(text, reason)
            return None
        return run

    def _verify(self, state: StudyState) -> dict[str, tuple[int, int]]:
        """Runs against trials; what does not agree is a warning with the numbers."""
        tracking, verified = self._study.base.tracking, {}
        trials = to_account_for(state)
        reported = [trial for trial in trials if trial.results]
        if self._run is not None and self._run.found is not None:
            verified["mlflow"] = _told("MLflow", self._run.found, trials)
        if tracking.wandb and os.environ.get("WANDB_MODE", "").lower() != "disabled":
            verified["wandb"] = _told("W&B", self._wandb_runs(reported), reported)
        if tracking.tensorboard:
            found = {trial.number: int(any(self._tensorboard(trial).glob("events.*"))) for trial in reported}
            verified["tensorboard"] = _told("TensorBoard", found, reported)
        return verified

    def _tensorboard(self, trial: TrialState) -> Path:
        return self._study_dir.trial_dir(trial.number).tensorboard

    def _wandb_runs(self, trials: list[TrialState]) -> dict[int, int]:
        """Of each trial the runs that its folder holds; one that is another's counts too, so that it is seen."""
        found = {}
        for trial in trials:
            folders = (self._study_dir.trial_dir(trial.number).path / "wandb").glob("*run-*")
            ids = {match[1] for folder in folders if (match := _WANDB_RUN.match(folder.name))}
            own = self.place(trial.number, trial.params).wandb_id
            found[trial.number] = len(ids) if own in ids else 0
        return found

    def _say_how_to_look(self, verified: Mapping[str, tuple[int, int]]) -> None:
        trials = self._study_dir.trials
        if "tensorboard" in verified:
            look = command("--logdir", trials, program="tensorboard")
            _log.info("TensorBoard lists every trial: %s", look, extra=NOTICE)
        if "wandb" in verified and any(trials.glob("*/wandb/offline-run-*")):
            text = "W&B kept the trials offline; send them with: wandb sync %s/*/wandb/offline-run-*"
            _log.info(text, shlex.quote(str(trials)), extra=NOTICE)


def _told(tracker: str, runs: Mapping[int, int], trials: list[TrialState]) -> tuple[int, int]:
    """Runs there are and trials there are; a warning where they differ or a trial has none or several."""
    odd = [trial.number for trial in trials if runs.get(trial.number, 0) != 1]
    strangers = sorted(runs.keys() - {trial.number for trial in trials})
    number = sum(runs.values())
    if odd or strangers:
        names = ", ".join(f"trial {k} has {runs.get(k, 0)}" for k in [*odd, *strangers][:5])
        more = ", .." if len(odd) + len(strangers) > 5 else ""
        text = "%s has %d runs for %d trials (%s%s); the trials' folders have the rest"
        _log.warning(text, tracker, number, len(trials), names, more)
    return number, len(trials)


def _in_time(work: Callable[[], None], seconds: float) -> None:
    """Do `work`, in a thread: a server may take a request and never answer.

    Raises:
        Exception: what `work` raised. TimeoutError: it takes longer.
    """
    failed: list[Exception] = []

    def go() -> None:
        try:
            work()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=go, name="cabruca-study-begins", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
