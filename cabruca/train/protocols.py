"""Who the train function talks to. Four small protocols; `loop.train` knows nothing else of the world.

========  ==========================================================  =======================================
object    answers                                                     called
========  ==========================================================  =======================================
Task      what is learnt?                                             by the loop, every rank
Reporter  where do records and checkpoints go, shall I stop,          every rank, equally often (a report may
          where do I resume?                                          be a barrier); may raise StopTraining
Callback  who watches?                                                rank 0 only, no collectives
========  ==========================================================  =======================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from cabruca.findings import Findings
from cabruca.runtime import Runtime
from cabruca.train.run_info import RunInfo as RunInfo  # noqa: PLC0414 (handed on)
from cabruca.train.run_info import StageInfo as StageInfo  # noqa: PLC0414

Metrics = dict[str, float]
"""name -> number; NaN where a number is undefined (written as null)."""

State = dict[str, Any]
"""What a checkpoint holds: tensors and plain containers only."""


NOTICE = {"notice": True}
"""`log.info(text, extra=NOTICE)`: an information that people should see on the terminal as well."""


def memory_of(metrics: Mapping[str, Any]) -> float | None:
    """MB of what an epoch's metrics say of memory: the GPU's where it computed on one, else the process's; or None."""
    found = metrics.get("memory/cuda_mb", metrics.get("memory/rss_mb"))
    return None if found is None else float(found)


class StopTraining(Exception):
    """Raised by a Reporter, on all ranks alike, to end training after saving.

    `state` is the status that the run is left in; `reason` is for people.
    """

    def __init__(self, reason: str, state: Literal["stopped", "interrupted"] = "stopped") -> None:
        super().__init__(reason)
        self.reason = reason
        self.state = state


@dataclass(frozen=True)
class Losses:
    """One micro-batch's losses, a value per picture, so that any cut of the batch sums to the same.

    Attributes:
        total: `[B]`, weighted sum, differentiable.
        parts: name -> `[B]`, detached, unweighted, for the record (`loss_instance`, `rpn`, ...).
    """

    total: Tensor
    parts: Mapping[str, Tensor]


@dataclass(frozen=True)
class Picture:
    """A picture for people: name without suffix, uint8 `[H, W, 3]`."""

    name: str
    rgb: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Validation:
    """What a pass over the validation set found; the loop adds the `val/` in front of each name.

    Attributes:
        pictures: truth beside prediction. findings: plain arrays behind the metrics, for those who draw them.
        beside: plain facts about the weights that were validated, the same on every rank, that the checkpoints saved
            from then on carry in their sidecars.
    """

    metrics: Metrics
    pictures: Sequence[Picture] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    findings: Findings | None = None


Autocast = Callable[[], AbstractContextManager[Any]]
"""Makes the autocast context of the run's precision (a null context in fp32 and fp64)."""


@runtime_checkable
class Task(Protocol):
    """What is learnt. Everything random in it is a function of (seed, epoch, sample index).

    A task may offer two methods more, for faults that should be found before the first step: `prepare() -> None` opens
    the data of training and validation; `metric_names() -> frozenset[str]` names all that a validation can measure.
    A third, `compilable(model) -> list[nn.Module]`, gives the parts of the model that torch.compile may take.
    """

    def build_model(self) -> nn.Module:
        """A fresh model on the CPU, initialised from `training.seed` alone (global RNG untouched)."""
        ...

    def parameter_part(self, name: str) -> str:
        """`backbone`, `heads` or `custom`: the group of the parameter called `name`."""
        ...

    def num_train_samples(self, epoch: int) -> int:
        """Samples in training epoch `epoch` (0-based)."""
        ...

    def train_batches(self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime) -> Iterable[Any]:
        """One batch for each list of sample indices, in order, on `runtime.device`."""
        ...

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """Per-picture losses of a batch (called under autocast)."""
        ...

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        """Metrics over the whole validation set; this rank's share is gathered inside. Leaves no trace in `model`."""
        ...

    def state(self) -> State:
        """What evaluate and predict need besides weights (input specification, classes, ...)."""
        ...


def prepare(task: Task) -> None:
    """Let a task that has a `prepare()` open its data now, so that what is wrong with it is found before training."""
    step = getattr(task, "prepare", None)
    if step is not None:
        step()


def metric_names(task: Task) -> frozenset[str] | None:
    """What a task's validations can measure, where it has a `metric_names()` that says so beforehand; else None."""
    names = getattr(task, "metric_names", None)
    found: frozenset[str] | None = None if names is None else names()
    return found


def compilable(task: Task, model: nn.Module) -> list[nn.Module]:
    """The parts of `model` that torch.compile may take, where the task has a `compilable()` that says so; else none."""
    parts = getattr(task, "compilable", None)
    found: list[nn.Module] = [] if parts is None else parts(model)
    return found


class TaskAround:
    """A `Task` that is another one; subclasses change a part of it."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def prepare(self) -> None:
        prepare(self._task)

    def metric_names(self) -> frozenset[str] | None:
        return metric_names(self._task)

    def compilable(self, model: nn.Module) -> list[nn.Module]:
        return compilable(self._task, model)

    def build_model(self) -> nn.Module:
        return self._task.build_model()

    def parameter_part(self, name: str) -> str:
        return self._task.parameter_part(name)

    def num_train_samples(self, epoch: int) -> int:
        return self._task.num_train_samples(epoch)

    def train_batches(self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime) -> Iterable[Any]:
        return self._task.train_batches(epoch, index_batches, runtime)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        return self._task.losses(model, batch)

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        return self._task.validate(model, runtime, autocast, epoch=epoch)

    def state(self) -> State:
        return self._task.state()


@dataclass(frozen=True)
class Record:
    """One row: at a logged step or at an epoch's end. `metrics` names are complete (`train/...`, `val/...`, `lr/...`,
    `time/...`, `memory/...`). `epoch` counts epochs completed (during an epoch: before it), `step` optimizer steps.
    `pictures` and `findings` are those of the epoch's validation."""

    epoch: int
    step: int
    metrics: Metrics
    stage: int = 0
    pictures: Sequence[Picture] = field(default=())
    findings: Findings | None = None


@dataclass(frozen=True)
class TrainResult:
    """How it ended.

    Attributes:
        state: `finished` (all epochs, or early stopping), `stopped` (a scheduler asked), `interrupted` (a signal).
        epochs: epochs completed; step: optimizer steps; best: monitored metric's best value or None; best_epoch.
        metrics: the last epoch's record. message: one line for people.
        exit_code: what a process that did this run exits with: 0, or 128 + the signal that interrupted it.
    """

    state: Literal["finished", "stopped", "interrupted"]
    epochs: int
    step: int
    best: float | None
    best_epoch: int | None
    metrics: Metrics
    message: str
    exit_code: int = 0


class Callback(Protocol):
    """Who watches. Rank 0 only; five typed hooks; subclass `BaseCallback` to need only some."""

    def on_start(self, info: RunInfo) -> None: ...
    def on_step(self, record: Record) -> None: ...
    def on_validation(self, record: Record) -> None: ...
    def on_epoch(self, record: Record) -> None: ...
    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None: ...


class BaseCallback:
    """Five hooks that do nothing."""

    def on_start(self, info: RunInfo) -> None: ...
    def on_step(self, record: Record) -> None: ...
    def on_validation(self, record: Record) -> None: ...
    def on_epoch(self, record: Record) -> None: ...
    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None: ...


@dataclass(frozen=True)
class Save:
    """A checkpoint to be written, and under which names. `state` is built only when called (rank 0)."""

    state: Callable[[], State]
    best: bool = False
    numbered: bool = False


@runtime_checkable
class Reporter(Protocol):
    """Where results and checkpoints go; whether to stop; where to resume."""

    def resume(self) -> State | None:
        """The state to go on from, on every rank, or None for a fresh start."""
        ...

    def heartbeat(self, record: Record) -> Literal["go", "save", "stop"]:
        """After every optimizer step on every rank: go on; save the middle of the epoch; or save and stop."""
        ...

    def save(self, record: Record, save: Save) -> None:
        """Write a checkpoint in the middle of an epoch."""
        ...

    def report(self, record: Record, save: Save) -> None:
        """At an epoch's end: keep the record and the checkpoint. May raise StopTraining on all ranks."""
        ...

    def finish(self, result: TrainResult | None, error: BaseException | None) -> None:
        """The last call, whatever happened."""
        ...
