"""How an epoch is cut: optimizer steps x micro-batches x ranks. The arithmetic of a run, derived in one place.

The cut changes nothing that is learnt: the pictures of an optimizer step are the same for every number of ranks and
for every split of the effective batch, and the loss of a step is a mean over its pictures, the last, incomplete
step of an epoch included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cabruca.draws import draw_key, uniform
from cabruca.errors import ConfigError, DataError
from cabruca.words import counted


def epoch_order(seed: int, epoch: int, num_samples: int) -> list[int]:
    """The order of the samples in `epoch`: a permutation of `range(num_samples)`, a function of (seed, epoch).

    Samples are ranked by a counter-based draw, so the order is the same on every machine and release of torch.
    """
    priorities = uniform(draw_key(seed, epoch), num_samples)
    order: list[int] = torch.argsort(priorities, stable=True).tolist()
    return order


@dataclass(frozen=True)
class BatchPlan:
    """The cut of one epoch.

    Attributes:
        num_samples: pictures in the epoch.
        batch_size: pictures in one forward pass, over all ranks together.
        accumulation: forward passes in one optimizer step.
        world_size, rank: the share of this process.

    Raises:
        ConfigError: `batch_size` does not divide over the ranks.
        DataError: there is nothing to train on.
    """

    num_samples: int
    batch_size: int
    accumulation: int = 1
    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            below = self.batch_size // self.world_size * self.world_size
            choices = f"{below} or {below + self.world_size}" if below else str(self.world_size)
            raise ConfigError(
                f"batch_size {self.batch_size} does not divide over {self.world_size} workers; use {choices}"
            )
        if self.num_samples < 1:
            raise DataError(
                f"the training set has {self.num_samples} samples; at least 1 is needed: see `cabruca data check`"
            )

    @property
    def effective_batch(self) -> int:
        """Pictures in a whole optimizer step."""
        return self.batch_size * self.accumulation

    @property
    def steps(self) -> int:
        """Optimizer steps in the epoch; the last one may have fewer pictures."""
        return -(-self.num_samples // self.effective_batch)

    def pictures(self, step: int) -> int:
        """Pictures in optimizer step `step` of the epoch, over all micro-batches and ranks."""
        return min(self.effective_batch, self.num_samples - step * self.effective_batch)

    def micro_batches(self, order: Sequence[int], step: int) -> list[list[int]]:
        """Sample indices of this rank in optimizer step `step`, a list per forward pass.

        A short micro-batch is dealt out one picture at a time, so ranks differ by one picture at most; a rank that
        gets none has fewer lists than the others (no list is empty).
        """
        start = step * self.effective_batch
        pictures = order[start : start + self.effective_batch]
        cuts = [pictures[i : i + self.batch_size] for i in range(0, len(pictures), self.batch_size)]
        shares = [list(cut[self.rank :: self.world_size]) for cut in cuts]
        return [share for share in shares if share]

    def describe(self) -> str:
        """The arithmetic in one line, for people."""
        last = self.pictures(self.steps - 1)
        short = f", the last of {last}" if last != self.effective_batch else ""
        return (
            f"{counted(self.num_samples, 'picture')} an epoch / (batch_size {self.batch_size} x accumulation "
            f"{self.accumulation} = {self.effective_batch}) = {counted(self.steps, 'optimizer step')}{short}; "
            f"{counted(self.batch_size // self.world_size, 'picture')} a forward pass on each of "
            f"{counted(self.world_size, 'worker')}"
        )
