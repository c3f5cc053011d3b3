"""`training.compile`: torch.compile where it pays, found out by measuring before the first step.

Modules are compiled in place (`module.compile()`), so every name in the state dict stays as it is, and a checkpoint
loads with and without. Validation is never compiled: its pictures have other sizes, and each would cost a minute.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cabruca.runtime import Runtime
from cabruca.train.precision import Precision
from cabruca.train.protocols import NOTICE, Task, compilable
from cabruca.train.shortage import is_shortage
from cabruca.train.state import generators, restore_generators

log = logging.getLogger("cabruca")

STEPS, WARM_UP = 20, 2
"""Steps that are measured with and without, and those before them that are not."""

_MAKERS = ("torch._dynamo", "torch._inductor", "triton")
"""Packages whose errors say that something could not be compiled, whatever their classes are called."""

BACKEND: Any = "inductor"
"""What compiles."""


class StepNotCompiled(Exception):
    """An optimizer step could not be compiled, on this rank or on another; nothing of it was applied."""


def cannot_compile(error: BaseException) -> bool:
    """Whether `error` is the compiler's own: another shape, a thaw or another machine may ask for what it cannot do."""
    return any(kind.__module__.startswith(_MAKERS) for kind in type(error).__mro__)


@dataclass(frozen=True)
class Trial:
    """Takes steps that teach nothing: forward, backward, no optimizer.

    Attributes:
        task, model, precision, runtime: as the run will use them.
    """

    task: Task
    model: nn.Module
    precision: Precision
    runtime: Runtime

    def step(self, batch: Any) -> None:
        """Forward and backward pass of one batch; the gradients are dropped."""
        with self.precision.autocast():
            loss = self.task.losses(self.model, batch).total.sum()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        self.model.zero_grad(set_to_none=True)

    def seconds(self, batch: Any) -> float:
        """How long a step takes."""
        self._wait()
        began = time.perf_counter()
        self.step(batch)
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.runtime.device.type == "cuda":
            torch.cuda.synchronize(self.runtime.device)
        elif self.runtime.device.type == "mps":
            torch.mps.synchronize()


def choose(trial: Trial, batches: Callable[[int], Iterable[Any]], *, saved: bool | None = None) -> bool:
    """Compile the parts of the model that the task names, if steps become faster by it; alike on every rank.

    Weights, buffers and random number generators are left as they were.

    Args:
        trial: what takes the steps.
        batches: gives that many training batches of this rank.
        saved: the choice of the run that is gone on with, which is taken over unmeasured; None: there is none.

    Returns:
        Whether the model is compiled now. It is not, with one warning, where compiling fails.
    """
    modules = compilable(trial.task, trial.model)
    if not modules:
        log.info("torch.compile: off, the task names no part that can be compiled", extra=NOTICE)
        return False
    if saved is not None:
        log.info("torch.compile: %s, as in the checkpoint's run", "on" if saved else "off", extra=NOTICE)
        if saved:
            compile_in_place(modules)
        return saved
    compile_in_place(modules)
    log.info("torch.compile: compiling and measuring, which takes minutes", extra=NOTICE)
    times = _measured(trial, batches(WARM_UP + STEPS))
    everywhere: list[tuple[float, float] | None] = trial.runtime.gather(times)
    if faster := _decide(everywhere):
        return faster
    undo(modules)
    return False


def compile_in_place(modules: Sequence[nn.Module]) -> None:
    """Let the modules' calls be compiled when they are first made. One compilation a shape: those of training are few,
    and code for any shape is slower."""
    for module in modules:
        module.compile(backend=BACKEND, dynamic=False)


def undo(modules: Sequence[nn.Module]) -> None:
    """Plain calls again; what was compiled is let go of."""
    for module in modules:
        module._compiled_call_impl = None  # torch offers no other way back
    torch.compiler.reset()


def give_up(modules: Sequence[nn.Module], why: str) -> None:
    """Plain calls from here on, with the one warning."""
    undo(modules)
    log.warning("torch.compile does not work here (%s); training goes on without it", why)


def reason(error: BaseException) -> str:
    """Kind and first line of what the compiler met."""
    cause = getattr(error, "inner_exception", error)  # of dynamo's own wrapping
    return f"{type(cause).__name__}: {next(iter(str(cause).splitlines()), '')}"


def plain() -> AbstractContextManager[Any]:
    """A context in which compiled modules run as if they were not."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _decide(everywhere: Sequence[tuple[float, float] | None]) -> bool:
    """The slowest rank is the one that all wait for; a rank on which compiling failed decides for all."""
    times = [pair for pair in everywhere if pair is not None]
    if len(times) < len(everywhere):
        return False
    compiled, usual = (max(pair[k] for pair in times) for k in (0, 1))
    verdict = "training goes on with it" if compiled < usual else "training goes on without it"
    log.info("torch.compile: a step takes %.4g s with it and %.4g s without (medians of %d); %s",
             compiled, usual, STEPS, verdict, extra=NOTICE)  # fmt: skip
    return compiled < usual


def _measured(trial: Trial, batches: Iterable[Any]) -> tuple[float, float] | None:
    """Median seconds of a step, compiled and not; None where compiling failed."""
    device = trial.runtime.device
    random = generators(device)
    buffers = [(buffer, buffer.clone()) for buffer in trial.model.buffers()]
    trial.model.train()
    try:
        return _interleaved(trial, batches)
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        restore_generators(random, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)


def _interleaved(trial: Trial, batches: Iterable[Any]) -> tuple[float, float] | None:
    """Each batch both ways, in turn first, so that a machine that slows down slows both."""
    compiled: list[float] = []
    usual: list[float] = []
    for number, batch in enumerate(batches):
        if hasattr(batch, "to"):
            batch = batch.to(trial.runtime.device, dtype=trial.precision.dtype)  # noqa: PLW2901
        for with_it in (number % 2 == 0, number % 2 == 1):
            seconds = _seconds(trial, batch, compiled=with_it)
            if seconds is None:
                return None
            if number >= WARM_UP:
                (compiled if with_it else usual).append(seconds)
    return (statistics.median(compiled), statistics.median(usual)) if compiled else (math.inf, math.inf)


def _seconds(trial: Trial, batch: Any, *, compiled: bool) -> float | None:
    try:
        with nullcontext() if compiled else plain():
            return trial.seconds(batch)
    except Exception as error:  # no C++ compiler, an operator it does not know, no memory, ...
        if not compiled and not is_shortage(error):
            raise  # a fault of the task; of memory, training itself will say what to do
        trial.model.zero_grad(set_to_none=True)
        log.warning("torch.compile does not work here (%s); training goes on without it", reason(error))
        return None
