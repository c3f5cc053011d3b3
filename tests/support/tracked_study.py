"""A study driven by hand in this process, trial after trial, for what its trackers keep of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from run_helpers import LineTask, rows

from cabruca.config.study import Study, load_study, trial_config
from cabruca.run import run_training
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal
from cabruca.tracking.study_trackers import StudyTrackers
from cabruca.train.protocols import Callback, Record, Reporter, StopTraining, TrainResult

METRIC = "val/mAP_50"


class BrokenLine(LineTask):
    """Raises in the second epoch."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.die_at = 1


class NoLine(LineTask):
    """Raises before there is a network, as where the memory ends."""

    def build_model(self) -> Any:
        raise MemoryError("no room for the network")


class StopAfterOne:
    """A reporter that is told to stop after its first epoch, as the study's scheduler does it."""

    def __init__(self, inner: Reporter) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def report(self, record: Record, save: Any) -> None:
        self.inner.report(record, save)
        raise StopTraining("asha: rung 1")


def line_study(folder: Path, tracking: dict[str, Any], **study: Any) -> Study:
    """A study of the line's learning rate; `study`: more of its keys."""
    folder.mkdir(parents=True, exist_ok=True)
    base = {
        "output_dir": str(folder / "outputs"),
        "device": "cpu",
        "data": {"batch_size": 4, "num_workers": 0},
        "training": {"num_epochs": 2, "log_interval": 2, "early_stopping_patience": 0, "monitor_metric": METRIC},
        "tracking": tracking,
    }
    space = {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}, "optimizer.weight_decay": {"uniform": [0.0, 0.1]}}
    raw = {"name": "lines", "config": "base.yaml", "num_trials": 4, "search_space": space, **study}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "lines.yaml").write_text(yaml.safe_dump(raw))
    return load_study(folder / "lines.yaml")


def study_folder(study: Study) -> StudyDir:
    """The study's folder, made where it is not there."""
    folder = StudyDir.of(study)
    return folder if folder.holds_study else StudyDir.create(study)


class ByHand:
    """One session of a study's driver: trackers begun, journal open."""

    def __init__(self, study: Study) -> None:
        self.study, self.folder = study, study_folder(study)
        self.journal = Journal(self.folder.results)
        self.trackers = StudyTrackers(study, self.folder)
        self.trackers.begin()

    def trial(
        self,
        number: int,
        lr: float,
        task: Any = LineTask,
        *,
        callbacks: Iterable[Callback] = (),
        stop: bool = False,
        resume: bool = False,
    ) -> TrainResult | None:
        """Run a trial as its process would, and write down what came of it; None of one that failed."""
        params = {"optimizer.lr": lr, "optimizer.weight_decay": 0.0}
        if number not in self.journal.state.trials:
            self._write("asked", number, params=params)
        self._write("started", number)
        result: TrainResult | None = None
        try:
            result = run_training(
                trial_config(self.study, params, number=number, folder=self.folder.trials),
                quiet=True,
                task_factory=task,
                callbacks=tuple(callbacks),
                resume="auto" if resume else None,
                within=self.trackers.place(number, params),
                test=False,
                **({"wrap": StopAfterOne} if stop else {}),
            )
        except (RuntimeError, MemoryError) as error:
            self._told(number, "failed", str(error).splitlines()[0])
            return None
        self._told(number, result.state, result.message)
        return result

    def end(self, **how: Any) -> dict[str, tuple[int, int]]:
        return self.trackers.end(self.journal.state, **how)

    def _told(self, number: int, state: str, reason: str) -> None:
        file = self.folder.trial_dir(number).metrics
        for row in rows(file) if file.is_file() else []:
            if METRIC in row and row["epoch"] > self.journal.state.trials[number].epoch:
                told = {"epoch": row["epoch"], "step": row["step"], "metrics": {METRIC: row[METRIC]}}
                self._write("result", number, **told, elapsed_s=1.0, memory_mb=100.0)
        trial = self.journal.state.trials[number]
        self._write("ended", number, state=state, epoch=trial.epoch, values=None, reason=reason)

    def _write(self, kind: str, number: int, **more: Any) -> None:
        event = self.journal.append({"event": kind, "trial": number, **more})
        self.trackers.on_event(event, self.journal.state)
