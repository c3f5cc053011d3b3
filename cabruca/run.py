"""A local run from end to end: plan it, check its data, make it ready, claim its folder, train, leave it in order.

Whatever a person can have got wrong is found before the folder is claimed, so that the corrected command, with the same
name, just works.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cabruca.commands import command
from cabruca.config.load import notices, redact, to_yaml
from cabruca.config.schema import Config
from cabruca.dry_run import dry_run as try_one_step
from cabruca.errors import ConfigError
from cabruca.runtime import Runtime, choose_device, set_threads, thread_budget
from cabruca.tracking.environment import describe_environment
from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.log import EarlyLog
from cabruca.tracking.profiling import profiled
from cabruca.tracking.progress import progress_of
from cabruca.tracking.reporter import LocalReporter
from cabruca.tracking.resume import RunPlan, mark_finished, plan_run, with_statistics
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.system import system_metrics
from cabruca.tracking.trackers import trackers_of
from cabruca.tracking.weights import PRETRAINED_REPORT, WithWeights, first_weights, read_source, warn_of_other_classes
from cabruca.train.loop import train
from cabruca.train.protocols import NOTICE, Callback, Task, TrainResult
from cabruca.train.ready import make_ready

_log = logging.getLogger("cabruca.run")

TaskFactory = Callable[[Config], Task]
Test = Callable[[RunDir, Config, bool], object]


@dataclass(frozen=True)
class Recipe:
    """How the parts of a run are made; tests put in small ones."""

    task: TaskFactory
    check: Callable[[Config], Sequence[Any]]
    test: Test = lambda *_: None  # of a finished run: its folder, its configuration, quiet


def cabruca_recipe() -> Recipe:
    """The real network on real data, imported when it is wanted."""
    from cabruca.data.check import quick_check
    from cabruca.held_out import measure_best
    from cabruca.task import CabrucaTask

    return Recipe(task=CabrucaTask, check=quick_check, test=measure_best)


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
) -> TrainResult:
    """Train on this machine and leave a run folder behind.

    Args:
        config: from file and flags; on a resume the checkpoint's configuration lies under it.
        resume: None, `auto` or a checkpoint; the rules are in `tracking.resume`.
        init_from: weights to begin with, a checkpoint or a plain state dict; nothing else is taken from it. Wins over
            `model.pretrained_checkpoint`, which does the same.
        dry_run: look at the data, take one step and one validation, say what they cost, write nothing.
        quiet: only warnings. json: one JSON object a line on stdout.
        explicit: dotted keys of `config` that came from flags (`optimizer.lr` among them scales every group).
        task_factory: what is learnt; default: the cabruca network. Another task is responsible for its own data check.
        callbacks: more watchers.

    Returns:
        How it ended; `exit_code` is 143 or 130 after a signal, else 0.

    Raises:
        CabrucaError: something a person can mend. TrainingDiverged: the numbers are not finite any more.
    """
    if resume not in (None, "auto") and init_from is not None:
        raise ConfigError("--resume and --init-from both bring weights; give one of them")
    recipe = cabruca_recipe() if task_factory is None else Recipe(task_factory, lambda _: ())
    early = EarlyLog(quiet=quiet)
    with early:
        plan = plan_run(config, resume, explicit)
    if plan.finished is not None and plan.run_dir is not None:
        mark_finished(plan.run_dir, plan.finished)
        progress_of(plan.config, quiet=quiet, json=json).on_end(plan.finished, None)
        if dry_run or plan.run_dir.was_tested:
            return plan.finished
        return _tested(plan.finished, recipe.test, plan.run_dir, plan.config, quiet=quiet)
    with early:
        if not dry_run:
            _refuse_taken(plan)
        begin = first_weights(init_from, plan.config.model.pretrained_checkpoint)
        source = read_source(*begin) if begin is not None and plan.state is None else None
        if source is not None:
            plan = replace(plan, config=with_statistics(plan.config, source.task))
            warn_of_other_classes(plan.config, source.task)
        elif begin is not None:
            plan.notes.append(f"{begin[1]} {begin[0]} is not read: this run goes on with the weights of its checkpoint")
        runtime = make_runtime(plan.config)
        findings = recipe.check(plan.config)
        for line in (*plan.notes, *notices(config)):
            _log.info("%s", line, extra=NOTICE)
        own = recipe.task(plan.config)
        first = None if source is None or begin is None else WithWeights(own, source.weights, begin[0])
        task = make_ready(plan.config, first or own)
        if dry_run:
            found = [str(finding) for finding in findings]
            return try_one_step(plan.config, task, runtime, found, json=json, state=plan.state)
        _tell(findings)
    weights = None if first is None else first.report
    session = _Session(quiet=quiet, json=json, callbacks=callbacks, said=early.records, weights=weights)
    return _run(plan, task, runtime, session, recipe.test)


def make_runtime(config: Config) -> Runtime:
    """Device, compute threads and loader processes of a run in this process.

    Raises:
        DeviceError: the device asked for is not there.
    """
    device = choose_device(config.device)
    budget = thread_budget(config.data.num_workers)
    set_threads(budget)
    return Runtime.single(device, loaders=budget.loaders)


@dataclass(frozen=True)
class _Session:
    """How a run speaks to people and programs. `said`: log records of before there was a folder. `weights`: the report
    on the file that a fresh run began with."""

    quiet: bool
    json: bool
    callbacks: Sequence[Callback]
    said: Sequence[logging.LogRecord]
    weights: Mapping[str, Any] | None = None


def _run(plan: RunPlan, task: Task, runtime: Runtime, session: _Session, test: Test) -> TrainResult:
    run_dir = _claim(plan)
    config = plan.config.model_copy(update={"experiment_name": run_dir.name})
    reporter = LocalReporter(run_dir, config, plan.state, quiet=session.quiet, said=session.said)
    try:
        reporter.start()
        _log.info("run folder: %s", run_dir.path, extra=NOTICE)
        _write_facts(run_dir, config, runtime)
        if session.weights is not None:
            write_atomic(run_dir.path / PRETRAINED_REPORT, to_json(session.weights, indent=1) + "\n")
        progress = progress_of(config, quiet=session.quiet, json=session.json, best=_best(plan))
        measured = system_metrics(config, runtime.device, run_dir.path)  # first: it adds to the records of the others
        task, profiler = profiled(task, run_dir, config)
        watchers = [*measured, *profiler, progress, *trackers_of(run_dir, config), *session.callbacks]
        result = train(config, task, runtime=runtime, reporter=reporter, callbacks=watchers)
    except BaseException as error:
        reporter.finish(None, error)
        raise
    reporter.finish(result, None)  # the loop has done it; here for the result of a loop that could not
    if reporter.signal_number is not None and result.state == "interrupted":
        print(f"interrupted; go on with: {resume_command(run_dir)}", file=sys.stderr, flush=True)
        return replace(result, exit_code=128 + reporter.signal_number)
    return _tested(result, test, run_dir, config, quiet=session.quiet) if result.state == "finished" else result


def _tested(result: TrainResult, test: Test, run_dir: RunDir, config: Config, *, quiet: bool) -> TrainResult:
    """A finished run's result after its test; a signal in the test is in the exit code, and the run stays finished."""
    try:
        test(run_dir, config, quiet)
    except KeyboardInterrupt as stop:
        return replace(result, exit_code=128 + int(getattr(stop, "number", signal.SIGINT)))
    return result


def resume_command(run_dir: RunDir) -> str:
    """What a person types to go on with an interrupted run."""
    return command("train", "--config", run_dir.config_yaml, "--resume", run_dir.latest)


def _best(plan: RunPlan) -> tuple[float, int] | None:
    best = (plan.state or {}).get("best") or {}
    return (best["value"], best["epoch"]) if best.get("value") is not None else None


def _refuse_taken(plan: RunPlan) -> None:
    """Before data and network cost their time; `_claim` decides."""
    if plan.run_dir is None and plan.config.experiment_name is not None:
        RunDir(Path(plan.config.output_dir) / plan.config.experiment_name).refuse_taken()


def _claim(plan: RunPlan) -> RunDir:
    if plan.run_dir is not None:
        return plan.run_dir.reopen()
    return RunDir.create(plan.config.output_dir, plan.config.experiment_name)


def _write_facts(run_dir: RunDir, config: Config, runtime: Runtime) -> None:
    write_atomic(run_dir.config_yaml, to_yaml(redact(config.to_dict())))
    write_atomic(run_dir.environment, to_json(describe_environment(str(runtime.device)), indent=1) + "\n")


def _tell(findings: Sequence[Any]) -> None:
    for finding in findings:
        level = logging.WARNING if getattr(finding, "level", "") == "warning" else logging.INFO
        _log.log(level, "data: %s", finding)
