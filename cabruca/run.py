"""A local run from end to end: prepare it (`preparing.py`), claim its folder, train, leave it in order."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cabruca.commands import command
from cabruca.config.schema import Config
from cabruca.dry_run import dry_run as try_one_step
from cabruca.preparing import (
    Made,
    Recipe,
    TaskFactory,
    best_of,
    claim,
    make_task,
    plan_training,
    recipe_of,
    tell,
    watched,
    write_facts,
)
from cabruca.runtime import Runtime, choose_device, set_threads, thread_budget
from cabruca.tracking.log import EarlyLog
from cabruca.tracking.progress import progress_of
from cabruca.tracking.reporter import LocalReporter
from cabruca.tracking.resume import RunPlan, mark_finished
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_place import StudyPlace
from cabruca.train.loop import train
from cabruca.train.protocols import NOTICE, Callback, Reporter, TrainResult

_log = logging.getLogger("cabruca.run")

Wrap = Callable[[Reporter], Reporter]


def unchanged(reporter: Reporter) -> Reporter:
    """The reporter of a run that is no trial."""
    return reporter


def run_training(
    config: Config,
    *,
    resume: str | None = None,
    init_from: str | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    json: bool = False,
    explicit: Mapping[str, Any] | None = None,
    task_factory: TaskFactory | None = None,
    callbacks: Sequence[Callback] = (),
    wrap: Wrap = unchanged,
    within: StudyPlace | None = None,
    cores: int | None = None,
    test: bool = True,
) -> TrainResult:
    """Train on this machine and leave a run folder behind.

    Args:
        config: from file and flags; on a resume the checkpoint's configuration lies under it.
        resume: None, `auto` or a checkpoint; the rules are in `tracking.resume`.
        init_from: weights to begin with, a checkpoint or a plain state dict; nothing else is taken from it. Wins over
            `model.pretrained_checkpoint`, which does the same.
        dry_run: look at the data, take two steps and one validation, say what they cost, write nothing.
        quiet: only warnings. json: one JSON object a line on stdout.
        explicit: dotted keys of `config` that came from flags (`optimizer.lr` among them scales every group).
        task_factory: what is learnt; default: the cabruca network. Another task is responsible for its own data check.
        callbacks: more watchers.
        wrap: puts another reporter around the run's own; a study's trials have one. within: the study, for trackers.
        cores: that this run may use; default: all. test: False leaves out the test at the end.

    Returns:
        How it ended; `exit_code` is 143 or 130 after a signal, else 0.

    Raises:
        CabrucaError: something a person can mend. TrainingDiverged: the numbers are not finite any more.
    """
    recipe = recipe_of(task_factory)
    early = EarlyLog(quiet=quiet)
    with early:
        planned = plan_training(config, resume=resume, init_from=init_from, explicit=explicit, claims=not dry_run)
    plan = planned.plan
    if plan.finished is not None:
        progress = progress_of(plan.config, quiet=quiet, json=json)
        return already_finished(plan, recipe, [progress], quiet=quiet, test=test and not dry_run)
    with early:
        runtime = make_runtime(plan.config, cores)
        made = make_task(planned, recipe, config)
        if dry_run:
            found = [str(finding) for finding in made.findings]
            return try_one_step(plan.config, made.task, runtime, found, json=json, state=plan.state)
        tell(made.findings)
    seat = Seat(wrap, within, test)
    session = _Session(quiet=quiet, json=json, callbacks=callbacks, said=early.records, seat=seat)
    return _run(plan, made, runtime, session, recipe)


def make_runtime(config: Config, cores: int | None = None) -> Runtime:
    """Device, compute threads and loader processes of a run in this process, which may use `cores` (None: all).

    Raises:
        DeviceError: the device asked for is not there.
    """
    device = choose_device(config.device)
    budget = thread_budget(config.data.num_workers, cores)
    set_threads(budget)
    return Runtime.single(device, loaders=budget.loaders)


@dataclass(frozen=True)
class Seat:
    """Where a run sits in a study; see `run_training`."""

    wrap: Wrap = unchanged
    within: StudyPlace | None = None
    test: bool = True


@dataclass(frozen=True)
class _Session:
    """How a run speaks to people and programs. `said`: log records of before there was a folder."""

    quiet: bool
    json: bool
    callbacks: Sequence[Callback]
    said: Sequence[logging.LogRecord]
    seat: Seat


def _run(plan: RunPlan, made: Made, runtime: Runtime, session: _Session, recipe: Recipe) -> TrainResult:
    run_dir, config = claim(plan)
    reporter = LocalReporter(run_dir, config, plan.state, quiet=session.quiet, said=session.said)
    try:
        reporter.start()
        _log.info("run folder: %s", run_dir.path, extra=NOTICE)
        write_facts(run_dir, config, str(runtime.device), made.weights)
        progress = progress_of(config, quiet=session.quiet, json=session.json, best=best_of(plan))
        seat = session.seat
        task, watchers = watched(made.task, run_dir, config, runtime.device, [progress], within=seat.within)
        watchers += session.callbacks
        result = train(config, task, runtime=runtime, reporter=seat.wrap(reporter), callbacks=watchers)
    except BaseException as error:
        reporter.finish(None, error)
        raise
    reporter.finish(result, None)  # the loop has done it; here for the result of a loop that could not
    if reporter.signal_number is not None and result.state == "interrupted":
        tell_how_to_go_on(run_dir)
        return replace(result, exit_code=128 + reporter.signal_number)
    if result.state != "finished" or not session.seat.test:
        return result
    return tested(result, recipe, run_dir, config, quiet=session.quiet)


def already_finished(
    plan: RunPlan, recipe: Recipe, watchers: Sequence[Callback], *, quiet: bool, test: bool = True
) -> TrainResult:
    """The result of a run that has nothing left to do but, if that is wanted and missing, its test."""
    assert plan.finished is not None
    assert plan.run_dir is not None
    mark_finished(plan.run_dir, plan.finished)
    for watcher in watchers:
        watcher.on_end(plan.finished, None)
    if not test or plan.run_dir.was_tested:
        return plan.finished
    return tested(plan.finished, recipe, plan.run_dir, plan.config, quiet=quiet)


def tested(result: TrainResult, recipe: Recipe, run_dir: RunDir, config: Config, *, quiet: bool) -> TrainResult:
    """A finished run's result after its test; a signal in the test is in the exit code, and the run stays finished."""
    try:
        recipe.test(run_dir, config, quiet)
    except KeyboardInterrupt as stop:
        return replace(result, exit_code=128 + int(getattr(stop, "number", signal.SIGINT)))
    return result


def tell_how_to_go_on(run_dir: RunDir, *more: str) -> None:
    """Print, after an interruption, what a person types next; `more` words are added to it."""
    words = command("train", "--config", run_dir.config_yaml, "--resume", run_dir.latest, *more)
    print(f"interrupted; go on with: {words}", file=sys.stderr, flush=True)
