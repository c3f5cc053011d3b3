"""Facts of a run that are known before its first step: the batch arithmetic, the stages, the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageInfo:
    """One stage: its epochs `first_epoch <= epoch < first_epoch + epochs`, its tiles in px, its `optimizer.lr`."""

    first_epoch: int
    epochs: int
    steps_per_epoch: int
    tile_size: int
    lr: float

    def describe(self) -> str:
        last = self.first_epoch + self.epochs
        return f"epochs {self.first_epoch + 1}-{last}, {self.tile_size} px tiles, lr {self.lr:g}"


@dataclass(frozen=True)
class RunInfo:
    """Facts known before the first step.

    Attributes:
        num_epochs, steps_per_epoch, batch_size (over all ranks), effective_batch: the arithmetic, derived once.
        device, precision: as resolved. parameters: trainable numbers in the model. resumed_epoch: epochs done before.
        config: the resolved configuration as plain containers, secrets redacted.
        stages: of the run; `steps_per_epoch` is of the one that this process begins in.
    """

    num_epochs: int
    steps_per_epoch: int
    batch_size: int
    effective_batch: int
    device: str
    precision: str
    parameters: int
    resumed_epoch: int
    resumed_step: int
    config: Mapping[str, Any]
    stages: Sequence[StageInfo] = ()

    def steps_in(self, epoch: int) -> int:
        """Optimizer steps of epoch `epoch` (0-based)."""
        ahead = (s.steps_per_epoch for s in self.stages if epoch < s.first_epoch + s.epochs)
        return next(ahead, self.stages[-1].steps_per_epoch if self.stages else self.steps_per_epoch)

    def steps_before(self, epoch: int) -> int:
        """Optimizer steps of all epochs before epoch `epoch`."""
        if not self.stages:
            return epoch * self.steps_per_epoch
        return sum(s.steps_per_epoch * min(max(epoch - s.first_epoch, 0), s.epochs) for s in self.stages)

    def work(self, first: int, end: int) -> float:
        """What the epochs `first <= epoch < end` cost, in optimizer steps times pixels of a tile."""
        if not self.stages:
            return float(end - first)
        return sum(
            s.steps_per_epoch * s.tile_size**2 * max(0, min(end, s.first_epoch + s.epochs) - max(first, s.first_epoch))
            for s in self.stages
        )
