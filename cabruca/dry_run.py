"""Two steps and one validation, to see whether a run would work and what it would cost; nothing is written.

The steps are the costliest that the run will take: the largest tiles of its stages, and nothing frozen. The first one
opens pictures, starts loaders and warms up caches, so the second one is the measure of all others.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from cabruca.config.schema import Config
from cabruca.config.stages import StageSpan, stages_of
from cabruca.runtime import Runtime
from cabruca.tracking.files import to_json
from cabruca.train.batching import BatchPlan
from cabruca.train.loop import train
from cabruca.train.protocols import (
    BaseCallback,
    Record,
    RunInfo,
    Save,
    State,
    StopTraining,
    Task,
    TaskAround,
    TrainResult,
    memory_of,
)
from cabruca.words import counted


class TwoSteps(TaskAround):
    """A `Task` whose epoch is two optimizer steps (of `a_step` pictures each) of epoch `like` of another task's, which
    gives its pictures again where it has fewer."""

    def __init__(self, task: Task, a_step: int, like: int = 0) -> None:
        super().__init__(task)
        self._samples, self._like = 2 * a_step, like

    def num_train_samples(self, epoch: int) -> int:
        return self._samples

    def train_batches(self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime) -> Iterable[Any]:
        there = self._task.num_train_samples(self._like)
        return self._task.train_batches(self._like, [[i % there for i in batch] for batch in index_batches], runtime)


class Stopwatch(BaseCallback):
    """Reporter and callback of a dry run: keeps nothing, takes times, stops after the first epoch.

    Args:
        state: a checkpoint's, of which the weights are tried; None: fresh ones.
    """

    def __init__(self, state: State | None = None) -> None:
        self._weights = None if state is None else {"model": state["model"]}
        self.info: RunInfo | None = None
        self.record: Record | None = None
        self._marks: dict[str, float] = {}

    def on_start(self, info: RunInfo) -> None:
        self.info = info
        self._marks["start"] = time.perf_counter()

    def resume(self) -> State | None:
        return self._weights

    def heartbeat(self, record: Record) -> Literal["go", "save", "stop"]:
        self._marks["step" if "first" in self._marks else "first"] = time.perf_counter()
        return "go"

    def save(self, record: Record, save: Save) -> None:
        raise StopTraining("dry run")

    def report(self, record: Record, save: Save) -> None:
        self._marks["end"] = time.perf_counter()
        self.record = record
        save.state()  # the memory that a checkpoint takes is part of the cost
        raise StopTraining("dry run")

    def finish(self, result: TrainResult | None, error: BaseException | None) -> None: ...

    def seconds(self, begin: str, end: str) -> float:
        """Between two of start, first, step (the second), end; NaN where one was not reached."""
        return self._marks.get(end, float("nan")) - self._marks.get(begin, float("nan"))


def dry_run(
    config: Config,
    task: Task,
    runtime: Runtime,
    findings: Sequence[str],
    *,
    json: bool,
    state: State | None = None,
) -> TrainResult:
    """Look, take two steps and one validation, and print the arithmetic, the time and the memory.

    Args:
        state: of the checkpoint that the run would go on from; its weights are tried.
        findings: of the data check, one line each.
        json: one object on stdout instead of lines.
    """
    training = config.training
    samples = task.num_train_samples(0)
    plan = BatchPlan(samples, config.data.batch_size, training.gradient_accumulation_steps, runtime.world_size)
    watch = Stopwatch(state)
    largest = _largest(config)
    two = TwoSteps(task, plan.effective_batch, largest.first_epoch)
    result = train(_tried(config, largest), two, runtime=runtime, reporter=watch, callbacks=[watch])
    facts = _facts(config, task, plan, watch)
    message = (
        f"dry run: {facts['step_s']:.2f} s a step ({_of_what(config, largest)}), "
        f"{facts['memory_mb']:.0f} MB, "
        f"{facts['validation_s']:.2f} s a validation; {counted(training.num_epochs, 'epoch')} "
        f"would take about {facts['total_s'] / 3600:.2f} h; "
        "nothing was written"
    )
    if json:
        print(to_json({"event": "dry_run", **facts, "findings": list(findings)}), flush=True)
    else:
        for line in (*(f"data: {f}" for f in findings), plan.describe(), _machine(watch), message):
            print(line, file=sys.stdout, flush=True)
    metrics = dict(watch.record.metrics) if watch.record else {}
    return TrainResult("finished", 0, result.step, None, None, metrics, message)


def _largest(config: Config) -> StageSpan:
    """The stage with the largest tiles, the first of them."""
    return max(stages_of(config), key=lambda stage: stage.tile_size)


def _tried(config: Config, largest: StageSpan) -> Config:
    """`config` with that stage alone, nothing frozen, and no torch.compile, whose trial is longer than the step."""
    training, chosen = config.training, config.training.stages[largest.index : largest.index + 1]
    changes = {"stages": chosen, "num_epochs": largest.epochs, "unfreeze": (), "compile": False}
    return config.model_copy(
        update={
            "training": training.model_copy(update=changes),
            "validation": config.validation.model_copy(update={"frequency": 1}),
        }
    )


def _of_what(config: Config, largest: StageSpan) -> str:
    words = [f"{largest.tile_size} px tiles" + (", the largest" if config.training.stages else "")]
    if config.training.unfreeze:
        words.append("nothing frozen")
    if config.training.compile:
        words.append("without torch.compile")
    return ", ".join(words)


def _steps_of_the_largest_size(config: Config, task: Task, plan: BatchPlan) -> float:
    """Optimizer steps of the whole run, a step of smaller tiles counted by their pixels."""
    stages, largest = stages_of(config), _largest(config)
    return sum(
        stage.epochs
        * replace(plan, num_samples=task.num_train_samples(stage.first_epoch)).steps
        * (stage.tile_size / largest.tile_size) ** 2
        for stage in stages
    )


def _facts(config: Config, task: Task, plan: BatchPlan, watch: Stopwatch) -> dict[str, Any]:
    metrics = watch.record.metrics if watch.record else {}
    epochs = config.training.num_epochs
    step_s, validation_s = watch.seconds("first", "step"), watch.seconds("step", "end")
    step_s *= min(1.0, plan.num_samples / plan.effective_batch)  # fewer pictures than a step may have
    return {
        "pictures": plan.num_samples,
        "effective_batch": plan.effective_batch,
        "steps_per_epoch": plan.steps,
        "epochs": epochs,
        "tile_size": _largest(config).tile_size,
        "first_step_s": watch.seconds("start", "first"),
        "step_s": step_s,
        "validation_s": validation_s,
        "memory_mb": memory_of(metrics) or math.nan,
        "total_s": _steps_of_the_largest_size(config, task, plan) * step_s
        + epochs // config.validation.frequency * validation_s,
        "metrics": {k: v for k, v in metrics.items() if not k.startswith(("time/", "memory/"))},
    }


def _machine(watch: Stopwatch) -> str:
    if watch.info is None:
        return "stopped before the first step"
    return f"{watch.info.parameters / 1e6:.2f} M parameters, {watch.info.device}, {watch.info.precision}"
