"""The trained network of a checkpoint as predict uses it."""

from __future__ import annotations

import torch
from torch import nn

from cabruca.errors import OutOfMemory
from cabruca.evaluation import Trained
from cabruca.runtime import Runtime
from cabruca.structures import Batch, Prediction
from cabruca.train.precision import resolve
from cabruca.train.shortage import SMALLEST_TILE, in_one_line, is_shortage


class TrainedNetwork:
    """A `Network`: a checkpoint's, on the runtime's device, in the precision it was trained with.

    `validation.max_detections` is of a training window: of larger windows it takes more crowns, in proportion.

    Args:
        nms_iou: crowns of a class in one window that overlap more are one; None: as it was trained.
    """

    def __init__(self, trained: Trained, runtime: Runtime, *, nms_iou: float | None = None) -> None:
        self._precision = resolve(trained.config.training, runtime.device.type)
        self._device = runtime.device
        if nms_iou is not None:
            trained.model.nms_iou = nms_iou
        trained.model.grow_caps = True
        self._model: nn.Module = trained.model.to(runtime.device, self._precision.dtype).eval()

    def __call__(self, batch: Batch) -> list[Prediction]:
        """What is found in each window.

        Raises:
            OutOfMemory: the batch does not fit into memory; says which flags make it fit.
        """
        try:
            return self._look(batch)
        except Exception as error:
            if not is_shortage(error):
                raise
            raise OutOfMemory(_advice(batch, self._device.type, in_one_line(error))) from None

    @torch.inference_mode()
    def _look(self, batch: Batch) -> list[Prediction]:
        moved = batch.to(self._device, dtype=self._precision.dtype)
        with self._precision.autocast():
            found: list[Prediction] = self._model(moved, losses=False, predictions=True).predictions
        return found


def _advice(batch: Batch, device: str, said: str) -> str:
    """A smaller batch changes nothing of the map, so a map that was begun goes on with it."""
    windows, (height, width) = len(batch), batch.images.shape[-2:]
    half = max(height, width) // 2 // 32 * 32
    ways = [f"give --batch-size {windows // 2} (with --resume it goes on)"] if windows > 1 else []
    ways += [f"give --tile-size {half}"] if half >= SMALLEST_TILE else []
    ways += ["compute on the CPU: --device cpu"] if device != "cpu" else []
    return (
        f"out of memory on {device} ({said}): batch size {windows} x windows of {width} x {height} px does not fit; "
        f"{', or '.join(ways) or 'free memory, or take a larger machine'}"
    )
