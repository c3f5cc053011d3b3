"""The best trials of a study again, each over several seeds: winners of short runs are often luck.

A repetition is the trial's configuration with another `training.seed`, whole, without a scheduler, in a run folder of
its own below `<study>/repeats`. What is finished there stays; what was interrupted goes on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cabruca import errors
from cabruca.config.schema import Config
from cabruca.config.study import Study, trial_config
from cabruca.distributed.cluster import cluster_for
from cabruca.distributed.folder_sizes import drop_checkpoints
from cabruca.distributed.group import open_desk
from cabruca.distributed.mirror import MirroredReporter, mirror_of
from cabruca.distributed.repeat_rows import are_left, describe, row_of
from cabruca.distributed.room import trials_at_once, wait_for_room
from cabruca.distributed.study_desk import StudyDesk
from cabruca.distributed.study_mirror import close_copy, drop_there, fetch_of, placed, run_dir_of
from cabruca.distributed.study_run import LOOK_S, Stop, cores_of, look_at_the_clock, resources_of, stop_on_signals
from cabruca.distributed.trial import clean_process, wait_for_the_dead
from cabruca.distributed.trial_lines import LeaveLine
from cabruca.distributed.trial_reporter import TrialReporter
from cabruca.errors import CabrucaError, RunError
from cabruca.preparing import TaskFactory
from cabruca.run import Wrap, run_training
from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.log import EarlyLog
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import read_status
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import read
from cabruca.tracking.study_place import StudyPlace
from cabruca.tracking.study_state import TrialState
from cabruca.tracking.study_trackers import StudyTrackers
from cabruca.train.protocols import NOTICE, TrainResult

_log = logging.getLogger("cabruca.distributed")

TOP, SEEDS = 2, 3
"""What is repeated where neither the study nor the command says."""


@dataclass(frozen=True)
class Repeats:
    """What repeating came to; `rows` are those of repeats.json.

    Attributes:
        state: `finished`, `interrupted` (a signal) or `stopped` (the time is up; the same command goes on).
    """

    rows: Sequence[Mapping[str, Any]]
    state: str
    exit_code: int = 0


@dataclass(frozen=True)
class _Work:
    """One repetition; plain values and handles."""

    trial: int
    seed: int
    config: Config
    task: TaskFactory | None
    workers: int
    cores: int
    desk: Any
    place: StudyPlace

    @property
    def run_dir(self) -> RunDir:
        return run_dir_of(self.config)


def run_repeats(
    study: Study,
    study_dir: StudyDir,
    *,
    top: int | None = None,
    seeds: int | None = None,
    budget_s: float | None = None,
    quiet: bool = False,
    json: bool = False,
    trial: TaskFactory | None = None,
    watchers: Sequence[Any] = (),
) -> Repeats:
    """Train the best `top` trials again with `seeds` seeds each, and write repeats.json.

    Args:
        top, seeds: None: as `repeat_best` says. budget_s: seconds after which repetitions save and end.
        trial: what is learnt; default: the cabruca network.

    Raises:
        CabrucaError: the study is being run by another process; a repetition failed.
    """
    with ExitStack() as stack:
        stack.enter_context(study_dir.lock())
        stack.enter_context(EarlyLog(quiet=quiet or json))
        stack.enter_context(cluster_for(study.base))
        trackers = StudyTrackers(study, study_dir)
        trackers.begin()
        found: Repeats | None = None
        try:
            ends_at = None if budget_s is None else time.monotonic() + budget_s
            found = repeat_best(study, study_dir, top=top, seeds=seeds, ends_at=ends_at, trial=trial, places=trackers)
        finally:
            trackers.end(read(study_dir.results), interrupted=found is None or found.exit_code != 0)
            close_copy(study, study_dir)
        return found


def repeat_best(
    study: Study,
    study_dir: StudyDir,
    *,
    top: int | None = None,
    seeds: int | None = None,
    ends_at: float | None = None,
    trial: TaskFactory | None = None,
    places: StudyTrackers,
) -> Repeats:
    """The same in a cluster that is connected, of a study that is locked; `places`: begun.

    Args:
        ends_at: `time.monotonic()` after which repetitions save and end; None: never.
    """
    asked = study.config.repeat_best
    top = top or (asked.top if asked else TOP)
    seeds = seeds or (asked.seeds if asked else SEEDS)
    state = read(study_dir.results)
    ranked = [t for t in state.ranked(study) if t.state in ("finished", "stopped") and t.best(study)]
    chosen = ranked[:top]
    if not chosen:
        raise RunError(f"study {study_dir.name} has no trial with a value to repeat")
    stop = Stop()
    import ray

    desk = open_desk(ray, StudyDesk)
    make = partial(_Work, task=trial, workers=study.config.workers_per_trial, cores=cores_of(study), desk=desk)
    pairs = [(one.number, seed) for one in chosen for seed in range(1, seeds + 1)]
    every = [
        make(
            number,
            seed,
            _config(study, study_dir, state.trials[number], seed),
            place=places.place(number, state.trials[number].params, seed=seed),
        )
        for number, seed in pairs
    ]
    failures = _run_all(study, study_dir, every, desk, stop=stop, ends_at=ends_at)
    rows = [row_of(study, study_dir, one, seeds) for one in chosen]
    write_atomic(study_dir.repeats_json, to_json({"metric": study.metrics[0], "trials": rows}, indent=1) + "\n")
    for row in rows:
        _log.info("%s", describe(row), extra=NOTICE)
    if failures:
        raise _together(failures, study_dir.repeats_json.name)
    if stop.number is not None:
        return Repeats(rows, "interrupted", 128 + stop.number)
    return Repeats(rows, "stopped" if stop.reason is not None and are_left(rows, seeds) else "finished")


def _run_all(
    study: Study, study_dir: StudyDir, every: Sequence[_Work], desk: Any, *, stop: Stop, ends_at: float | None
) -> list[CabrucaError]:
    """Run those that are not finished, as many at a time as trials; those that failed, which stop no other."""
    import ray

    untyped: Any = ray
    for work in every:
        fetch_of(work.config, weights=False)
    waiting = [work for work in every if (read_status(work.run_dir.status) or {}).get("state") != "finished"]
    wanted = resources_of(study)
    options: dict[str, Any] = {"num_cpus": wanted.get("cpu", 0), "num_gpus": wanted.get("gpu", 0)}
    options |= {
        "max_retries": study.config.max_failures,
        **({"memory": wanted["memory"]} if "memory" in wanted else {}),
    }
    once = untyped.remote(**options)(_repeat_once)
    running: dict[Any, _Work] = {}
    failures: list[CabrucaError] = []
    look_at_the_clock(stop, ends_at)
    try:
        with stop_on_signals(stop):
            while running or (waiting and stop.reason is None):
                while waiting and len(running) < trials_at_once(study, study_dir) and stop.reason is None:
                    work = waiting.pop(0)
                    running[once.remote(work, str(Path.cwd()))] = work
                if stop.reason is not None:
                    desk.ask_leave.remote(stop.reason)
                done, _ = untyped.wait(list(running), num_returns=1, timeout=LOOK_S)
                for one in done:
                    failures += _failure(untyped, one, running.pop(one))
                look_at_the_clock(stop, ends_at)
    finally:
        untyped.kill(desk)
    return failures


def _together(failures: Sequence[CabrucaError], kept: str) -> CabrucaError:
    """The first of them, and what is left."""
    more = f"; {len(failures) - 1} more failed" if len(failures) > 1 else ""
    return type(failures[0])(f"{failures[0]}{more}; {kept} has the others")


def _failure(ray: Any, done: Any, work: _Work) -> list[CabrucaError]:
    name = f"repetition {work.run_dir.name}"
    try:
        kind, said = ray.get(done)
        fetch_of(work.config, weights=False)
    except ray.exceptions.RayError as error:
        return [RunError(f"{name} ended with its process ({type(error).__name__}); give the command again")]
    if kind == "done":
        if said != "interrupted":  # that one goes on from its newest
            drop_all_but_best(work.run_dir)
            drop_there(work.config, keep=work.run_dir.best.name)
        return []
    known: type[CabrucaError] = getattr(errors, kind, RunError)
    return [known(f"{name}: {said}")]


def drop_all_but_best(run_dir: RunDir) -> None:
    """A repetition is measured, not gone on with: no checkpoint of it but the best is kept."""
    best = run_dir.best
    aside = best.with_suffix(".kept")
    if best.is_file():
        best.rename(aside)
    drop_checkpoints(run_dir)
    if aside.is_file():
        aside.rename(best)


def _config(study: Study, study_dir: StudyDir, one: TrialState, seed: int) -> Config:
    config = trial_config(study, one.params, number=one.number, folder=study_dir.repeats.absolute())
    training = config.training.model_copy(update={"seed": study.base.training.seed + seed})
    name = study_dir.repeat_dir(one.number, seed).path.name
    config = config.model_copy(update={"training": training, "experiment_name": name})
    return placed(config, study_dir, study_dir.repeats)


def _repeat_once(work: _Work, folder: str) -> tuple[str, str]:
    """In a process of the cluster. What goes wrong comes back as its class and message."""
    os.chdir(folder)
    clean_process()
    line = LeaveLine(work.desk, work.trial)
    wrap = partial(TrialReporter, line=line, metrics=(), epochs=work.config.training.num_epochs)
    run_dir, mirror = work.run_dir, mirror_of(work.config)
    options: dict[str, Any] = {
        "quiet": True,
        "task_factory": work.task,
        "within": work.place,
        "test": False,
    }
    try:
        fetch_of(work.config)
        wait_for_the_dead(run_dir)
        resume = "auto" if run_dir.holds_run and not run_dir.was_stillborn else None
        result: TrainResult
        if work.workers == 1:
            own: Wrap = lambda inner: wrap(MirroredReporter(inner, run_dir, mirror))  # noqa: E731
            result = run_training(work.config, resume=resume, cores=work.cores, wrap=own, **options)
        else:
            from cabruca.distributed.ray_train import train_on_workers

            leave = wait_for_room(work.config, line.leave_asked)
            if leave is not None:
                return "done", "interrupted"
            result = train_on_workers(work.config, resume=resume, wrap=wrap, **options)
    except (CabrucaError, errors.TrainingDiverged) as error:
        return type(error).__name__, str(error)
    except Exception as error:
        return "RunError", f"{type(error).__name__}: {error}"
    return "done", result.state
