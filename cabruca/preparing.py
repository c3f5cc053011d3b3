"""Everything of a run that comes before its first step: the plan, the weights, the data, the model, the folder.

`run.py` trains in this process and `distributed/` on workers; both prepare here. Whatever a person can have got wrong
is found before the folder is claimed, so that the corrected command, with the same name, just works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cabruca.config.load import notices, redact, to_yaml
from cabruca.config.schema import Config
from cabruca.errors import ConfigError
from cabruca.tracking.environment import describe_environment
from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.profiling import profiled
from cabruca.tracking.resume import RunPlan, plan_run, with_statistics
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_place import StudyPlace
from cabruca.tracking.system import system_metrics
from cabruca.tracking.trackers import trackers_of
from cabruca.tracking.weights import (
    PRETRAINED_REPORT,
    Source,
    WithWeights,
    first_weights,
    read_source,
    warn_of_other_classes,
)
from cabruca.train.protocols import NOTICE, Callback, Task
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


def recipe_of(task_factory: TaskFactory | None) -> Recipe:
    """The real network on real data, imported when it is wanted; or another task, which checks its own data."""
    if task_factory is not None:
        return Recipe(task_factory, lambda _: ())
    from cabruca.data.check import quick_check
    from cabruca.held_out import measure_best
    from cabruca.task import CabrucaTask

    return Recipe(task=CabrucaTask, check=quick_check, test=measure_best)


@dataclass(frozen=True)
class Planned:
    """A run's plan and the weights that a fresh one begins with.

    Attributes:
        begin: file of weights and what asked for it, or None. source: what it holds; None where it is not read.
    """

    plan: RunPlan
    begin: tuple[str, str] | None = None
    source: Source | None = None


@dataclass(frozen=True)
class Made:
    """A task with open data and a model; what was found in the data; the report on the weights it began with."""

    task: Task
    findings: Sequence[Any] = field(default=())
    weights: Mapping[str, Any] | None = None


def plan_training(
    config: Config, *, resume: str | None, init_from: str | None, explicit: Mapping[str, Any] | None, claims: bool
) -> Planned:
    """Decide where the run begins; reads, but writes nothing. Arguments as in `run.run_training`.

    Args:
        claims: the run will want a folder; one that is taken is refused now.

    Raises:
        CabrucaError: as `tracking.resume.plan_run`; a folder that is taken; weights that cannot be read.
    """
    if resume not in (None, "auto") and init_from is not None:
        raise ConfigError("--resume and --init-from both bring weights; give one of them")
    plan = plan_run(config, resume, explicit)
    if plan.finished is not None:
        return Planned(plan)
    # how the work is cut is no part of what a run is: a checkpoint does not decide it
    plan = replace(plan, config=plan.config.model_copy(update={"distributed": config.distributed}))
    if claims and plan.run_dir is None and plan.config.experiment_name is not None:
        # before data and network cost their time; `claim` decides
        RunDir(Path(plan.config.output_dir) / plan.config.experiment_name).refuse_taken()
    begin = first_weights(init_from, plan.config.model.pretrained_checkpoint)
    source = read_source(*begin) if begin is not None and plan.state is None else None
    if source is not None:
        plan = replace(plan, config=with_statistics(plan.config, source.task))
        warn_of_other_classes(plan.config, source.task)
    elif begin is not None:
        plan.notes.append(f"{begin[1]} {begin[0]} is not read: this run goes on with the weights of its checkpoint")
    return Planned(plan, begin, source)


def make_task(planned: Planned, recipe: Recipe, config: Config) -> Made:
    """Look at the data, say what the plan has to say, open the data and build the model.

    Args:
        config: as it was given, for its notices.

    Raises:
        ConfigError, DataError, CheckpointError: one line each.
    """
    plan = planned.plan
    findings = recipe.check(plan.config)
    for line in (*plan.notes, *notices(config)):
        _log.info("%s", line, extra=NOTICE)
    own = recipe.task(plan.config)
    first = None
    if planned.source is not None and planned.begin is not None:
        first = WithWeights(own, planned.source.weights, planned.begin[0])
    task = make_ready(plan.config, first or own)
    return Made(task, findings, None if first is None else first.report)


def tell(findings: Sequence[Any]) -> None:
    """Findings in the data, as log lines."""
    for finding in findings:
        level = logging.WARNING if getattr(finding, "level", "") == "warning" else logging.INFO
        _log.log(level, "data: %s", finding)


def claim(plan: RunPlan) -> tuple[RunDir, Config]:
    """The run's folder, new or opened again, and the configuration with its name.

    Raises:
        RunError: it holds a run, another process is at work there, or it cannot be written.
    """
    if plan.run_dir is not None:
        run_dir = plan.run_dir.reopen()
    else:
        run_dir = RunDir.create(plan.config.output_dir, plan.config.experiment_name)
    return run_dir, plan.config.model_copy(update={"experiment_name": run_dir.name})


def write_facts(run_dir: RunDir, config: Config, device: str, weights: Mapping[str, Any] | None) -> None:
    """config.yaml, environment.json and, of a run that began with a file of weights, the report on it."""
    write_atomic(run_dir.config_yaml, to_yaml(redact(config.to_dict())))
    write_atomic(run_dir.environment, to_json(describe_environment(device), indent=1) + "\n")
    if weights is not None:
        write_atomic(run_dir.path / PRETRAINED_REPORT, to_json(weights, indent=1) + "\n")


def best_of(plan: RunPlan) -> tuple[float, int] | None:
    """Best monitored value of a run that goes on, and its epoch."""
    best = (plan.state or {}).get("best") or {}
    return (best["value"], best["epoch"]) if best.get("value") is not None else None


def watched(
    task: Task,
    run_dir: RunDir,
    config: Config,
    device: torch.device,
    watchers: Sequence[Callback],
    *,
    within: StudyPlace | None = None,
) -> tuple[Task, list[Callback]]:
    """The task and all callbacks of a run: system metrics, profiler, `watchers`, trackers.

    Args:
        within: of a trial, its place in its study.
    """
    measured = system_metrics(config, device, run_dir.path)  # first: it adds to the records of the others
    task, profiler = profiled(task, run_dir, config)
    return task, [*measured, *profiler, *watchers, *trackers_of(run_dir, config, within=within, task=task.state())]
