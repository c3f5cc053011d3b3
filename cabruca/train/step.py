"""One optimizer step: accumulate, add up over ranks, unscale, clip, step; or skip it, all ranks together.

Gradients are summed over ranks by hand, once an optimizer step, instead of by DistributedDataParallel: a rank whose
share of the last micro-batch is empty runs no backward pass, which DDP's hooks would wait for; the sum (not the
average) over ranks is what "sum over pictures / pictures in the step" needs; and the model keeps its plain names.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cabruca.runtime import Runtime
from cabruca.train.compiling import StepNotCompiled, cannot_compile, reason
from cabruca.train.meters import Sums
from cabruca.train.precision import Precision
from cabruca.train.protocols import Task
from cabruca.train.shortage import StepTooLarge, in_one_line, is_shortage
from cabruca.train.state import generators, restore_generators


@dataclass(frozen=True)
class Outcome:
    """What a step did: this rank's sums, whether it was skipped, and the names of this rank's pictures."""

    sums: Sums
    skipped: bool
    pictures: list[str]


class Stepper:
    """Takes optimizer steps.

    Args:
        task, model, optimizer, precision, runtime: what learns, and where.
        clip: largest gradient norm; 0: no clipping.
        redoable: a step that does not fit, or compile, leaves the generators, too, as they were before it.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        precision: Precision,
        runtime: Runtime,
        clip: float,
        redoable: bool = False,
    ) -> None:
        self.task, self.model, self.optimizer = task, model, optimizer
        self.precision, self.runtime, self.clip = precision, runtime, clip
        self.redoable = redoable

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that learn now, in the optimizer's order."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]

    def __call__(self, batches: Iterator[Any], micro_batches: int, pictures: int) -> Outcome:
        """One optimizer step.

        Args:
            batches: where the next `micro_batches` batches of this rank come from.
            micro_batches: forward passes of this rank; 0 where its share is empty.
            pictures: pictures in the whole step, over all ranks: the loss is a mean over them.

        Raises:
            StepTooLarge: on all ranks, where one has too little memory; weights and moments are as before the step.
            StepNotCompiled: on all ranks, where the compiler of one gave up; the same holds.
        """
        began = time.perf_counter()
        step, names = self._fitting(batches, micro_batches, pictures)
        sum_gradients(self.parameters, self.runtime)
        try:
            norm = self._update()
        except Exception as error:  # the moments of the first step may be what does not fit; weights may have moved
            if not is_shortage(error):
                raise
            raise StepTooLarge(in_one_line(error), applied=True) from None
        seconds = time.perf_counter() - began
        if norm is None:
            return Outcome(Sums(skipped_steps=1, train_s=seconds, wait_s=step.wait_s), True, names)
        step.steps, step.grad_norm, step.train_s = 1, norm, seconds
        return Outcome(step, False, names)

    def _fitting(self, batches: Iterator[Any], micro_batches: int, pictures: int) -> tuple[Sums, list[str]]:
        """The step's gradients, if they fit into the memory of every rank and every rank could compile them."""
        done, said, uncompiled = None, "", ""
        before = generators(self.runtime.device) if self.redoable else {}
        try:
            done = self._accumulate(batches, micro_batches, pictures)
        except Exception as error:
            if cannot_compile(error):  # asked first: what the compiler has no memory for may fit without it
                uncompiled = reason(error)
            elif is_shortage(error):
                said = in_one_line(error)
            else:
                raise
        # outside of the except: its error would keep the frames, and with them the tensors, of the failed pass
        if self.runtime.any(done is None):
            self.optimizer.zero_grad(set_to_none=True)
            if before:
                restore_generators(before, self.runtime.device)
            if self.runtime.any(bool(said)):
                raise StepTooLarge(_whose(self.runtime.gather(said)))
            raise StepNotCompiled(uncompiled or "on another worker")
        assert done is not None
        return done

    def _accumulate(self, batches: Iterator[Any], micro_batches: int, pictures: int) -> tuple[Sums, list[str]]:
        step = Sums()
        names: list[str] = []
        self.optimizer.zero_grad(set_to_none=True)
        for _ in range(micro_batches):
            waiting = time.perf_counter()
            batch = next(batches)
            step.wait_s += time.perf_counter() - waiting
            if hasattr(batch, "to"):
                batch = batch.to(self.runtime.device, dtype=self.precision.dtype)
            with self.precision.autocast():
                losses = self.task.losses(self.model, batch)
            loss = losses.total.sum() / pictures
            if loss.requires_grad:  # a batch without any truth teaches nothing
                self.precision.backward(loss)
            step.add_losses(losses)
            names.extend(str(name) for name in getattr(batch, "pictures", ()))
        return step, names

    def _update(self) -> float | None:
        """Unscale, clip, step. The gradient's norm before clipping; None where the step was skipped."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not gradients:
            return 0.0
        self.precision.unscale(self.optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        skip = self.runtime.any(not bool(torch.isfinite(norm)))
        if self.clip > 0 and not skip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        self.precision.step(self.optimizer, skip=skip)
        return None if skip else float(norm)


def sum_gradients(parameters: list[nn.Parameter], runtime: Runtime) -> None:
    """Sum the gradients over ranks, in one message a number format.

    A parameter that no rank has a gradient for keeps None, as it would alone: an optimizer treats None (leave it)
    and zero (decay it) differently.
    """
    if runtime.world_size == 1:
        return
    for dtype in sorted({p.dtype for p in parameters}, key=str):
        alike = [p for p in parameters if p.dtype == dtype]
        present = torch.tensor([p.grad is not None for p in alike], dtype=dtype, device=alike[0].device)
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in alike]
        total = runtime.sum_into(torch.cat([present, *flat]))
        _hand_out(alike, total[: len(alike)], total[len(alike) :])


def _hand_out(parameters: list[nn.Parameter], present: Tensor, flat: Tensor) -> None:
    pieces = torch.split(flat, [p.numel() for p in parameters])
    for parameter, ranks, piece in zip(parameters, present.tolist(), pieces, strict=True):
        # empty_like + copy_ keeps the memory format that the optimizer's moments have
        parameter.grad = torch.empty_like(parameter).copy_(piece.view(parameter.shape)) if ranks else None


def _whose(said: Sequence[str]) -> str:
    """The words of the first rank that has any; the same on all ranks, which name it."""
    rank = next(rank for rank, words in enumerate(said) if words)
    return said[rank] if len(said) == 1 else f"worker {rank}: {said[rank]}"
