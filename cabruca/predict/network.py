"""The trained network of a checkpoint as predict uses it."""

from __future__ import annotations

import torch
from torch import nn

from cabruca.evaluation import Trained
from cabruca.runtime import Runtime
from cabruca.structures import Batch, Prediction
from cabruca.train.precision import resolve


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

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> list[Prediction]:
        moved = batch.to(self._device, dtype=self._precision.dtype)
        with self._precision.autocast():
            found: list[Prediction] = self._model(moved, losses=False, predictions=True).predictions
        return found
