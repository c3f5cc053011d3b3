"""Line fits whose trials fail, by their learning rate."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ray_tasks import FineLine
from torch import Tensor, nn

from cabruca.errors import DataError
from cabruca.runtime import Runtime
from cabruca.train.protocols import Autocast, Validation

BREAKS, NAN, DIES, MISSES = 0.21, 0.22, 0.23, 0.24
"""Learning rates at which a trial raises, measures no number, is killed, or meets an error of data."""


class Fragile(FineLine):
    """Raises in the second epoch; or the validation after it is NaN; or the process is killed, always at one place.

    A file `mended` in the study's folder heals what raises.
    """

    @property
    def _lr(self) -> float:
        return self.config.optimizer.lr

    def train_batches(
        self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime
    ) -> Iterable[tuple[Tensor, Tensor]]:
        mended = (Path(self.config.output_dir).parent / "mended").exists()
        if epoch == 1 and not mended:
            if self._lr == BREAKS:
                raise RuntimeError("the line broke\nsecond line")
            if self._lr == MISSES:
                raise DataError("picture 7 is broken; mend it")
            if self._lr == DIES:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().train_batches(epoch, index_batches, runtime)

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        found = super().validate(model, runtime, autocast, epoch=epoch)
        if self._lr == NAN and epoch >= 2:
            return Validation({**found.metrics, "mAP_50": float("nan")})
        return found


class SlowStart(FineLine):
    """Every epoch takes a tenth of a second, wherever it runs."""

    def train_batches(
        self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime
    ) -> Iterable[tuple[Tensor, Tensor]]:
        time.sleep(0.1)
        return super().train_batches(epoch, index_batches, runtime)


class FoldLine(FineLine):
    """Its validation depends on the fold: the name of the annotations is added."""

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        found = super().validate(model, runtime, autocast, epoch=epoch)
        more = float(self.config.data.val_annotations)
        return Validation({**found.metrics, "mAP_50": found.metrics["mAP_50"] + more})
