"""A study from end to end: the driver. The study's folder is the truth, Ray is the muscle.

Begin, go on after a kill, lengthen, widen, repeat what failed: all the same. The journal is read, what is missing is
run, every event is written down before anything is decided on it.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cabruca.config.schema import Config
from cabruca.config.study import Study
from cabruca.config.study_folds import folds_of
from cabruca.distributed.cluster import all_resources, cluster_for
from cabruca.distributed.group import open_desk
from cabruca.distributed.keeping import Keeper
from cabruca.distributed.population import check_population
from cabruca.distributed.preflight import Resources
from cabruca.distributed.repeat import repeat_best
from cabruca.distributed.repeat_rows import are_left
from cabruca.distributed.study_books import StudyBooks, Watcher
from cabruca.distributed.study_desk import StudyDesk
from cabruca.distributed.study_failing import FailureWatch, all_failed
from cabruca.distributed.study_fit import check_trials_fit
from cabruca.distributed.study_metrics import StudyMetrics
from cabruca.distributed.study_mirror import study_mirror
from cabruca.distributed.study_outputs import Tables
from cabruca.distributed.study_prognosis import foresee
from cabruca.distributed.study_run import Stop, cores_of, run_tuner
from cabruca.distributed.trial import TrialJob
from cabruca.preparing import TaskFactory
from cabruca.study_report.parts import repeated
from cabruca.tracking.log import RunLog
from cabruca.tracking.signals import Stopped, stopping
from cabruca.tracking.status import StatusFile
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal, events
from cabruca.tracking.study_trackers import StudyTrackers
from cabruca.tracking.study_words import TIME_IS_UP, go_on_command
from cabruca.train.protocols import NOTICE

_log = logging.getLogger("cabruca.distributed")

BEGAN = "the study begins"
"""Note in the journal at the beginning of each session."""


@dataclass(frozen=True)
class StudyResult:
    """How it ended.

    Attributes:
        state: `finished` (no trial is left), `stopped` (time or disk is used up), `interrupted` (a signal).
        best: number of the best trial, None where none has a value.
        message: one line for people. exit_code: 0, 2 where every trial failed, or 128 + the signal.
    """

    state: Literal["finished", "stopped", "interrupted"]
    best: int | None
    message: str
    exit_code: int = 0


def run_study(
    study: Study,
    study_dir: StudyDir,
    *,
    retry_failed: bool = False,
    address: str | None = None,
    quiet: bool = False,
    watchers: Sequence[Watcher] = (),
    json: bool = False,
    trial: TaskFactory | None = None,
    dry: bool = True,
) -> StudyResult:
    """Run what is left of a study, in its folder: all of a new one, the rest of one that was killed or lengthened.

    Args:
        study: as it is now; where it differs from study.yaml (more trials, a wider space), that is written anew.
        study_dir: made by `StudyDir.create`, or opened.
        retry_failed: the failed trials are asked again, as new ones with the same parameters.
        address: of a Ray cluster; None: as the configuration or RAY_ADDRESS says, else one of our own.
        quiet: only warnings on the terminal. watchers: called after every event of the journal, and at the end.
        json: the terminal is left to a watcher that writes JSON. trial: what is learnt; default: the cabruca network.
        dry: try one epoch of the base configuration first, where that was not done yet; its estimate is printed.

    Returns:
        How it ended.

    Raises:
        CabrucaError: the study is being run by another process, or does not fit; the cluster does not answer; the disk
            refused. What a trial raises ends that trial alone.
    """
    with ExitStack() as stack:
        stack.enter_context(study_dir.lock())
        if not study_dir.was_asked:
            study_dir.forget_beginning()
            study_dir.write(study)
        driver = _Driver(study, study_dir, watchers, trial, quiet=quiet or json)
        stack.enter_context(driver.at_work())
        stack.enter_context(cluster_for(_base_at(study, address)))
        result = driver.go(retry_failed=retry_failed, dry=dry)
    if result.state != "finished" or result.exit_code:
        words = go_on_command(study, study_dir, result.message)
        print(f"{result.message}; go on with: {words}", file=sys.stderr, flush=True)
    return result


def _base_at(study: Study, address: str | None) -> Config:
    base = study.base
    if address is None:
        return base
    return base.model_copy(update={"distributed": base.distributed.model_copy(update={"address": address})})


def spent_s(study_dir: StudyDir) -> float:
    """Seconds that the study has been at work so far: from each beginning to the last event before the next."""
    total, began, last = 0.0, 0.0, 0.0
    for event in events(study_dir.results):
        if event["event"] == "note" and event["text"] == BEGAN:
            total, began = total + (last - began), float(event["time"])
        last = float(event["time"])
    return total + (last - began)


class _Driver:
    """What the driver holds while a study runs."""

    def __init__(
        self,
        study: Study,
        study_dir: StudyDir,
        watchers: Sequence[Watcher],
        task_factory: TaskFactory | None,
        *,
        quiet: bool,
    ) -> None:
        self._study, self._dir, self._watchers = study, study_dir, list(watchers)
        self._quiet, self._task = quiet, task_factory
        self._journal = Journal(study_dir.results)
        self._status = StatusFile(study_dir.status)
        self._tables = Tables(study, study_dir)
        self._stop = Stop()
        self._mirror = study_mirror(study, study_dir)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Log, status and journal are open; the status says in the end how the study is left."""
        log = RunLog(self._dir.log, quiet=self._quiet)
        log.open()
        self._status.set("starting", message="starting Ray")
        self._status.start()
        try:
            yield
        except BaseException as error:
            lines = str(error).strip().splitlines() or [""]
            state: Any = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._status.set(state, message=f"{type(error).__name__}: {lines[0]}")
            _log.error("failed: %s: %s", type(error).__name__, lines[0])
            raise
        finally:
            self._status.close()
            self._journal.close()
            log.close()
            if self._mirror is not None:
                self._mirror.close()

    def go(self, *, retry_failed: bool, dry: bool) -> StudyResult:
        import ray

        _log.info("study folder: %s", self._dir.path, extra=NOTICE)
        try:
            with stopping():
                self._look_ahead(all_resources(ray), dry=dry)
        except Stopped as stop:
            self._stop = Stop(signal.Signals(stop.number).name, stop.number)
            self._dir.write(self._study)
            return self._end()
        self._dir.write(self._study)  # not what was refused: the study stays as it was
        trackers = StudyTrackers(self._study, self._dir)
        trackers.begin()
        gauges = StudyMetrics(self._study, _gauge())
        desk = open_desk(ray, StudyDesk)
        copy = [] if self._mirror is None else [self._mirror]
        looking: list[Watcher] = [self._tables, *copy, trackers, gauges, *self._watchers]
        if self._mirror is not None:
            self._mirror.begin()
        books = StudyBooks(
            self._study, self._dir, self._journal, looking, desk=desk, places=trackers, mirror=self._mirror
        )
        used_s = spent_s(self._dir)
        books.write("note", text=BEGAN)
        self._status.set("running", message="")
        budget = self._study.config.time_budget_s
        ends_at = None if budget is None else time.monotonic() + budget - used_s
        job = TrialJob(
            desk=desk,
            task=self._task,
            metrics=self._study.metrics,
            workers=self._study.config.workers_per_trial,
            cores=cores_of(self._study),
            folder=str(Path.cwd()),
            population=books.population is not None,
            folds=folds_of(self._study.config.folds),
        )
        on_end = (Keeper(books, self._give_up), FailureWatch(books.state, self._give_up))

        def ended(number: int) -> None:
            for look in on_end:
                look(number)

        try:
            try:
                run_tuner(books, job, self._stop, retry_failed=retry_failed, ends_at=ends_at, on_end=ended)
            finally:
                ray.kill(desk)
            self._tables.write(books.state)
            if self._may_repeat(books):
                state = self._repeat(trackers, ends_at)
                books.write("note", text=f"repetitions of the best trials: {state}")  # `spent_s` counts up to here
                self._tables.write(books.state)
        except BaseException:
            trackers.end(books.state, interrupted=True)
            raise
        trackers.end(books.state, interrupted=self._stop.number is not None)
        return self._end()

    def _look_ahead(self, nodes: Sequence[Resources], *, dry: bool) -> None:
        check_population(self._study)
        check_trials_fit(self._study, self._dir, nodes)
        if dry:
            self._status.set(message="one dry epoch of the base configuration")
            foresee(self._study, self._dir, self._journal.state, self._task)

    def _may_repeat(self, books: StudyBooks) -> bool:
        return (
            self._stop.reason is None
            and self._study.config.repeat_best is not None
            and books.state.best(self._study) is not None
        )

    def _repeat(self, trackers: StudyTrackers, ends_at: float | None) -> str:
        self._status.set(message="repeating the best trials")
        again = repeat_best(self._study, self._dir, ends_at=ends_at, trial=self._task, places=trackers)
        if again.exit_code:
            number = again.exit_code - 128
            self._stop = Stop(signal.Signals(number).name, number)
        elif again.state == "stopped":
            self._stop = Stop(TIME_IS_UP)
        return again.state

    def _repeats_left(self) -> bool:
        """Whether the study asks for repetitions that are not done."""
        asked, state = self._study.config.repeat_best, self._journal.state
        if asked is None or state.best(self._study) is None:
            return False
        return are_left(repeated(self._dir, state, self._study), asked.seeds)

    def _give_up(self, reason: str) -> None:
        self._stop.reason = self._stop.reason or reason

    def _end(self) -> StudyResult:
        state, stop = self._journal.state, self._stop
        best = state.best(self._study)
        number = None if best is None else best.number
        asked = sum(trial.retry_of is None for trial in state.trials.values())
        left = asked < self._study.config.num_trials or state.count("waiting", "running", "interrupted")
        left = left or self._repeats_left()
        failed = all_failed(state)
        code = 0 if failed is None else 2
        if stop.reason is None or (stop.number is None and not left):
            result = StudyResult("finished", number, failed or "all trials have ended", code)
        elif stop.number is None:
            result = StudyResult("stopped", number, stop.reason, code)
        else:
            result = StudyResult("interrupted", number, f"interrupted by {stop.reason}", 128 + stop.number)
        self._status.set(result.state, message=result.message)
        for watcher in self._watchers:
            try:
                watcher.on_end(result)
            except Exception as error:
                _log.warning("%s failed (%s)", type(watcher).__name__, error)
        return result


def _gauge() -> Any:
    from ray.util.metrics import Gauge

    return Gauge
