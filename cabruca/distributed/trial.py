"""A trial of a study: the function that Ray Tune runs, in a process that serves one trial after the other.

What is left of an earlier attempt decides where it begins: its run folder, and what the study's journal knows of it.
Whatever goes wrong inside is this trial's failure, with an autopsy in its folder; it never ends the study.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cabruca.config.redact import redact
from cabruca.config.study_folds import Fold, with_fold
from cabruca.distributed.autopsy import write_autopsy
from cabruca.distributed.folds import FoldsLine, OtherFolds
from cabruca.distributed.mirror import Mirror, MirroredReporter, mirror_of
from cabruca.distributed.population import take_over
from cabruca.distributed.ray_metrics import GaugeWatcher, RayMetrics
from cabruca.distributed.room import wait_for_room
from cabruca.distributed.study_desk import Order
from cabruca.distributed.trial_ending import Ending, last_words
from cabruca.distributed.trial_history import untold, with_nan
from cabruca.distributed.trial_lines import DeskLine, TuneLine, order_at
from cabruca.distributed.trial_reporter import PAUSED, TAKES_OVER, Line, TrialReporter, refuse_not_a_number, result_of
from cabruca.errors import RunError
from cabruca.preparing import TaskFactory
from cabruca.run import run_training
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import StatusFile, is_alive, read_status
from cabruca.train.protocols import Reporter, TrainResult

BURIAL_S = 90.0
"""How long a trial waits for the process of its earlier attempt to be gone; on another machine, by its heartbeat."""

FORWARD_S = 0.05
"""Seconds between looks at what a trial's workers have told."""


@dataclass(frozen=True)
class TrialJob:
    """The same for all trials of a study; plain values and handles.

    Attributes:
        desk: handle of the study's desk. task: makes the task; None: the cabruca network.
        metrics: that the study compares by. workers: of a trial. cores: of a trial's process, or of each worker.
        folder: where the command was given; relative paths begin there.
        population: trials take over weights of others (pbt). folds: of a study over folds; else none.
    """

    desk: Any
    task: TaskFactory | None
    metrics: tuple[str, ...]
    workers: int
    cores: int
    folder: str
    population: bool = False
    folds: tuple[Fold, ...] = ()


def run_trial(config: Mapping[str, Any], job: TrialJob) -> dict[str, Any]:
    """What Ray Tune calls; the study's search chose `config`, which is the trial's number.

    Returns:
        The last report of the trial: its ending.

    Raises:
        SystemExit: Tune takes the process away. RunError: the study's desk has no order for the trial.
    """
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "600")  # a trial that is taken away may close its books
    with contextlib.suppress(OSError):
        os.chdir(job.folder)
    clean_process()
    order = order_at(job.desk, config["trial"])
    ending = Attempt(job, order).go()
    if ending.reason == PAUSED:
        raise SystemExit(0)
    return last_words(order.number, ending)


def clean_process() -> None:
    """What an earlier trial of this process may have left and that a run does not set itself."""
    import torch

    gc.collect()
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Attempt:
    """One attempt at a trial."""

    def __init__(self, job: TrialJob, order: Order) -> None:
        self._job, self._order = job, order
        self._config = order.config
        self._run_dir = RunDir(Path(order.config.output_dir) / str(order.config.experiment_name))
        self._line: Line = TuneLine(job.desk, order.number)
        self._told = order.known
        self._mirror: Mirror | None = None
        self._others: OtherFolds | None = None
        if job.folds:
            self._others = OtherFolds(order.config, job.folds, trial=order.number, metrics=job.metrics, desk=job.desk,
                                      task=job.task, cores=job.cores)  # fmt: skip
            self._line = FoldsLine(self._line, self._others.numbers)
            self._config = with_fold(order.config, job.folds[-1])

    def go(self) -> Ending:
        """Train as far as the study wants it; every failure of the trial is caught."""
        try:
            self._mirror = mirror_of(self._config)
            if self._mirror is not None:
                self._mirror.fetch(self._run_dir)
            wait_for_the_dead(self._run_dir)
            return self._train_folds() or self._catch_up() or self._train()  # what is told is a mean over the folds
        except Exception as error:
            epoch = int((read_status(self._run_dir.status) or {}).get("epoch", 0))
            said = write_autopsy(self._run_dir, self._config, error, epoch)
            self._mark("failed", epoch, said)
            return Ending("failed", epoch, said)

    def _catch_up(self) -> Ending | None:
        """Tell the study what was done and saved before this attempt and has not reached it."""
        self._tell_saved()
        known = self._told
        stop = self._line.stop_asked()
        if stop is not None and known < self._config.training.num_epochs:
            self._mark("stopped", known, stop)
            return Ending("stopped", known, stop)
        self._take_over(known)
        leave = self._line.leave_asked()
        return None if leave is None else Ending("interrupted", known, leave)

    def _tell_saved(self, before: int | None = None) -> None:
        """Epochs that were saved and not told, up to `before`."""
        if before is not None and before <= self._told + 1:
            return
        for row in untold(self._run_dir, self._told):
            epoch = int(row["epoch"])
            if before is not None and epoch >= before:
                return
            metrics = {name: value for name, value in row.items() if isinstance(value, float | int)}
            metrics = {name: float(value) for name, value in metrics.items() if "/" in name}
            refuse_not_a_number(with_nan(row, self._job.metrics) | metrics, self._job.metrics, epoch)
            self._line.tell(result_of(epoch, row["step"], metrics, self._order.elapsed_s))
            self._told = epoch

    def _train_folds(self) -> Ending | None:
        """The other folds, where there are any; how it ended where they did not come to their end."""
        result = None if self._others is None else self._others.train(wait_for_the_dead)
        return None if result is None else Ending(result.state, self._told, result.message)

    def _train(self) -> Ending:
        while True:
            resume = "auto" if self._run_dir.holds_run and not self._run_dir.was_stillborn else None
            if self._job.workers > 1:
                leave = wait_for_room(self._config, self._line.leave_asked)
                if leave is not None:
                    return Ending("interrupted", self._told, leave)
            result = self._alone(resume) if self._job.workers == 1 else self._on_workers(resume)
            if result.state != "interrupted" or not (TAKES_OVER in result.message and self._take_over(result.epochs)):
                return Ending(result.state, result.epochs, result.message)

    def _take_over(self, epoch: int) -> bool:
        """Take over another trial's weights, where the study wants it after this epoch."""
        found = self._line.take_over_asked(epoch) if self._job.population and epoch else None
        if found is None:
            return False
        self._config, donor = found.config, RunDir(Path(found.donor))
        if self._mirror is not None:
            self._mirror.beside(donor.name).fetch(donor)
        take_over(self._run_dir, donor, redact(found.config.to_dict()))
        return True

    def _wrap(self) -> Callable[[Reporter], Reporter]:
        line: Line = self._line if self._job.workers == 1 else DeskLine(self._job.desk, self._order.number)
        epochs = self._config.training.num_epochs
        return partial(
            TrialReporter,
            line=line,
            metrics=self._job.metrics,
            epochs=epochs,
            elapsed_s=self._order.elapsed_s,
            population=self._job.population,
        )

    def _kept(self, reporter: Reporter) -> Reporter:
        return self._wrap()(MirroredReporter(reporter, self._run_dir, self._mirror))

    def _alone(self, resume: str | None) -> TrainResult:
        return run_training(
            self._config,
            resume=resume,
            quiet=True,
            task_factory=self._job.task,
            wrap=self._kept,
            within=self._order.place,
            cores=self._job.cores,
            test=False,
            callbacks=[self._gauges()],
        )

    def _gauges(self) -> GaugeWatcher:
        from ray.util.metrics import Gauge

        monitored = self._config.training.monitor_metric
        return GaugeWatcher(RayMetrics(self._run_dir.name, 0, monitored, Gauge, within=self._order.place))

    def _on_workers(self, resume: str | None) -> TrainResult:
        """Ray Train inside the trial; this thread hands what rank 0 tells on to Ray Tune."""
        from cabruca.distributed.ray_train import train_on_workers

        found: list[TrainResult | BaseException] = []

        def run() -> None:
            try:
                found.append(
                    train_on_workers(
                        self._config,
                        resume=resume,
                        quiet=True,
                        task_factory=self._job.task,
                        wrap=self._wrap(),
                        within=self._order.place,
                        test=False,
                    )
                )
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=run, name="cabruca-trial", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(FORWARD_S)
            self._forward()
        self._forward()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def _forward(self) -> None:
        import ray

        for result in ray.get(self._job.desk.take.remote(self._order.number)):
            # a worker that was killed between saving and telling leaves a gap
            self._tell_saved(before=result["epoch"])
            self._line.tell(result)
            self._told = result["epoch"]
            ray.get(self._job.desk.answer.remote(self._order.number, result["epoch"]))

    def _mark(self, state: Any, epoch: int, message: str) -> None:
        """The run folder says how the trial is left, where no run was there to say so."""
        if self._run_dir.path.is_dir():
            StatusFile(self._run_dir.status).set(state, epoch=epoch, message=message)
            if self._mirror is not None:
                with contextlib.suppress(RunError):  # it may be what failed
                    self._mirror.push(self._run_dir)


def wait_for_the_dead(run_dir: RunDir, patience_s: float = BURIAL_S) -> None:
    """Wait until the process of an earlier attempt, whose driver was killed, is gone.

    Raises:
        RunError: it is not.
    """
    end = time.monotonic() + patience_s
    while is_alive(read_status(run_dir.status)):
        if time.monotonic() > end:
            status = read_status(run_dir.status) or {}
            raise RunError(
                f"run {run_dir.path} is still going on (process {status.get('pid')} on {status.get('host')}); stop it"
            )
        time.sleep(0.1)
