"""A trial over folds: the folds before the last are runs of their own, then the last one reports means over all.

What is finished of a fold stays through a kill, and what was interrupted goes on: a fold is a run folder below
`<study>/folds`, the last one is the trial's own. Their numbers are read from the folders, so nothing else is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cabruca.config.schema import Config
from cabruca.config.study_folds import Fold, other_fold
from cabruca.distributed.folder_sizes import drop_checkpoints
from cabruca.distributed.trial_history import epoch_of
from cabruca.distributed.trial_lines import LeaveLine
from cabruca.distributed.trial_reporter import Line, TrialReporter
from cabruca.preparing import TaskFactory
from cabruca.run import run_training
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import read_status
from cabruca.train.protocols import TrainResult

FOLDS = "folds"
"""Folder in a study's folder, beside that of the trials."""


class OtherFolds:
    """The folds of one trial but its last.

    Args:
        config: of the trial. folds: all of them. metrics: that the study compares by. desk: the study's.
    """

    def __init__(
        self,
        config: Config,
        folds: Sequence[Fold],
        *,
        trial: int,
        metrics: tuple[str, ...],
        desk: Any,
        task: TaskFactory | None,
        cores: int,
    ) -> None:
        folder = Path(config.output_dir).parent / FOLDS
        self.configs = [other_fold(config, fold, number=k, folder=folder) for k, fold in enumerate(folds[:-1], 1)]
        self._trial, self._metrics, self._desk, self._task, self._cores = trial, metrics, desk, task, cores

    @property
    def run_dirs(self) -> list[RunDir]:
        return [RunDir(Path(c.output_dir) / str(c.experiment_name)) for c in self.configs]

    def train(self, wait: Callable[[RunDir], None]) -> TrainResult | None:
        """Train what is not finished.

        Args:
            wait: for the process of an earlier attempt.

        Returns:
            The result of a fold that was interrupted; None: all are finished.
        """
        for config, run_dir in zip(self.configs, self.run_dirs, strict=True):
            wait(run_dir)
            if not is_finished(run_dir):
                result = self._train_one(config, run_dir)
                if result.state != "finished":
                    return result
            drop_checkpoints(run_dir)  # its numbers are all that is wanted of it
        return None

    def _train_one(self, config: Config, run_dir: RunDir) -> TrainResult:
        line, epochs = LeaveLine(self._desk, self._trial), config.training.num_epochs
        return run_training(
            config,
            resume="auto" if run_dir.holds_run and not run_dir.was_stillborn else None,
            quiet=True,
            task_factory=self._task,
            wrap=partial(TrialReporter, line=line, metrics=self._metrics, epochs=epochs),
            cores=self._cores,
            test=False,
        )

    def numbers(self, epoch: int) -> list[Mapping[str, float]]:
        """What each of them measured after an epoch."""
        return [epoch_of(run_dir, epoch) for run_dir in self.run_dirs]


class FoldsLine:
    """A line to the study that tells means over all folds.

    Args:
        line: the trial's own. others: numbers of the other folds after an epoch.
    """

    def __init__(self, line: Line, others: Callable[[int], Sequence[Mapping[str, float]]]) -> None:
        self._line, self._others = line, others

    def tell(self, result: Mapping[str, Any]) -> None:
        own = result["m"]
        self._line.tell({**result, "m": mean_of([own, *self._others(int(result["epoch"]))], own)})

    def stop_asked(self) -> str | None:
        return self._line.stop_asked()

    def take_over_asked(self, epoch: int) -> Any:
        return self._line.take_over_asked(epoch)

    def leave_asked(self) -> str | None:
        return self._line.leave_asked()


def mean_of(rows: Sequence[Mapping[str, float]], own: Mapping[str, float]) -> dict[str, float]:
    """Of each number of `val/` the mean over the rows, and left out where one has none; others as in `own`."""
    out = {}
    for name, value in own.items():
        if not name.startswith("val/"):
            out[name] = value
        elif all(name in row for row in rows):
            out[name] = math.fsum(row[name] for row in rows) / len(rows)
    return out


def fold_dirs(trial: RunDir) -> list[RunDir]:
    """Run folders of a trial's other folds, those that there are; it ends in the last one."""
    return [RunDir(path) for path in sorted((trial.path.parent.parent / FOLDS).glob(f"{trial.name}_fold_*"))]


def is_finished(run_dir: RunDir) -> bool:
    return (read_status(run_dir.status) or {}).get("state") == "finished"
