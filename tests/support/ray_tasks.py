"""Tasks for Ray workers, which import them by name: the line fit in double precision, and ways to break it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from run_helpers import LineTask
from torch import Tensor, nn

from cabruca.errors import ConfigError
from cabruca.runtime import Runtime
from cabruca.train.protocols import Autocast, Losses, Picture, Validation


class FineLine(LineTask):
    """The line fit in float64. Validation is shared by the ranks and gathered, as that of the real task."""

    points = 16

    def train_batches(
        self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime
    ) -> Iterable[tuple[Tensor, Tensor]]:
        for x, y in super().train_batches(epoch, index_batches, runtime):
            yield x.double(), y.double()

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        own = range(runtime.rank, self.points, runtime.world_size)
        x = torch.tensor(own, dtype=torch.float64)[:, None] / self.points
        with torch.no_grad():
            errors = ((model(x) - 2 * x - 1) ** 2)[:, 0].tolist()
        found = {i: e for part in runtime.gather(dict(zip(own, errors, strict=True))) for i, e in part.items()}
        loss = sum(found[i] for i in sorted(found)) / len(found)
        return Validation({"total_loss": loss, "mAP_50": 1 / (1 + loss)}, [Picture("line 1", red())])


def red() -> Any:
    picture = torch.zeros(8, 8, 3, dtype=torch.uint8)
    picture[..., 0] = 200
    return picture.numpy()


class FewPictures(FineLine):
    """The last step has one picture for two workers; so has the validation."""

    points = 1

    def num_train_samples(self, epoch: int) -> int:
        return 5


class FailsOnRankOne(FineLine):
    """Its second worker cannot read a picture of the second epoch."""

    error: type[Exception] = ConfigError

    def train_batches(
        self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime
    ) -> Iterable[tuple[Tensor, Tensor]]:
        if runtime.rank == 1 and epoch == 1:
            raise self.error("picture 7 is broken; mend it")
        return super().train_batches(epoch, index_batches, runtime)


class BugOnRankOne(FailsOnRankOne):
    """The same by an error that nobody expected."""

    error = ZeroDivisionError


class HungryRankOne(FineLine):
    """Its second worker has memory for two pictures at a time."""

    rank = 0

    def train_batches(
        self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime
    ) -> Iterable[tuple[Tensor, Tensor]]:
        self.rank = runtime.rank
        return super().train_batches(epoch, index_batches, runtime)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        if self.rank == 1 and len(batch[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().losses(model, batch)


class SlowLine(FineLine):
    """Takes its time, so that there is something to look at."""

    def train_batches(
        self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime
    ) -> Iterable[tuple[Tensor, Tensor]]:
        self.sleep_s = 0.3
        return super().train_batches(epoch, index_batches, runtime)
