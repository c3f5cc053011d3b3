"""TensorBoard: scalars, learning rates and validation pictures under `<run>/tensorboard`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from cabruca.config.schema import Config
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.scalars import finite, step_scalars
from cabruca.train.protocols import BaseCallback, Record, RunInfo, TrainResult


class TensorBoardTracker(BaseCallback):
    """Every record at its optimizer step.

    A resumed run writes one more event file into the same folder, with `purge_step`, so that TensorBoard hides
    what an undisturbed run would not have.
    """

    def __init__(self, run_dir: RunDir, config: Config) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside tensorboard are not ours to mend
            from torch.utils.tensorboard import SummaryWriter
        self._make = SummaryWriter
        self._folder = str(run_dir.tensorboard)
        self._writer: SummaryWriter | None = None

    def on_start(self, info: RunInfo) -> None:
        purge = info.resumed_step + 1 if info.resumed_step else None
        self._writer = self._make(self._folder, purge_step=purge, flush_secs=30)

    def on_step(self, record: Record) -> None:
        self._scalars(step_scalars(record), record.step)

    def on_validation(self, record: Record) -> None:
        assert self._writer is not None
        for picture in record.pictures:
            self._writer.add_image(f"val/{picture.name}", picture.rgb, record.step, dataformats="HWC")

    def on_epoch(self, record: Record) -> None:
        self._scalars(finite(record), record.step)
        assert self._writer is not None
        self._writer.flush()

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, scalars: Mapping[str, float], step: int) -> None:
        assert self._writer is not None
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
