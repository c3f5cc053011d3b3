"""A checkpoint as a model that others can call: a table of crowns from a stack of pictures.

This module is the `loader_module` of the models that a run leaves in MLflow: MLflow imports it and calls
`_load_pyfunc`. Nothing is pickled, and MLflow is not imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from cabruca.data.dataset import PAD_MULTIPLE
from cabruca.errors import DataError
from cabruca.evaluation import load_model
from cabruca.model.segmenter import Segmenter
from cabruca.structures import Crowns, InputSpec, Prediction, Sample, collate
from cabruca.tracking.mlflow_model import CROWNS

if TYPE_CHECKING:
    import pandas as pd


def _load_pyfunc(data_path: str) -> ServedModel:
    """What MLflow calls; `data_path` is the checkpoint."""
    return ServedModel(data_path)


class ServedModel:
    """A network on the CPU, or on CUDA where there is one.

    Args:
        checkpoint: of a training run.

    Raises:
        CheckpointError: missing, damaged, or not a cabruca checkpoint.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        model, self.config, self.spec = load_model(checkpoint)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Segmenter = model.to(self._device)

    def predict(self, images: npt.ArrayLike, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """The crowns of a stack of pictures, one row a crown, best first within each picture.

        Args:
            images: float `[B, C, H, W]`, pixel values as in the raster and in the checkpoint's order of bands; NaN is
                NoData. At the resolution that the network was trained at (`gsd_m` of its input specification).
            params: `score_threshold`, from which on a crown is listed; default: as trained.

        Returns:
            The columns `CROWNS`: `picture` counts from 0; boxes in pixels; `crown_diameter_px` is that of the circle
            with the mask's area, or the mean side of the box where the crown has no mask.

        Raises:
            DataError: another shape, or another number of bands.
        """
        import pandas as pd

        stack = np.asarray(images, dtype=np.float32)
        bands = len(self.spec.bands)
        if stack.ndim != 4 or stack.shape[1] != bands:
            raise DataError(f"images of shape {stack.shape} are not [B, {bands}, H, W]; put {bands} bands first")
        least = float((params or {}).get("score_threshold", self.config.validation.score_threshold))
        found = (row for b, one in enumerate(stack) for row in self._rows(b, self._one(one), least))
        return pd.DataFrame(list(found), columns=[name for name, _ in CROWNS])

    @torch.inference_mode()
    def _one(self, pixels: npt.NDArray[np.float32]) -> Prediction:
        # one at a time: memory does not grow with the stack, and no picture depends on its neighbours
        batch = collate([_sample(pixels, self.spec)]).to(self._device)
        prediction: Prediction = self._model(batch, losses=False, predictions=True).predictions[0]
        return prediction

    def _rows(self, picture: int, found: Prediction, least: float) -> Iterator[Sequence[Any]]:
        names = self.spec.instance_classes
        areas = None if found.masks is None else found.masks.areas_px().tolist()
        for i, (box, score, label) in enumerate(
            zip(found.boxes_xyxy_px.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        ):
            if score >= least:
                side = (box[2] - box[0] + box[3] - box[1]) / 2
                diameter = 2 * math.sqrt(areas[i] / math.pi) if areas and areas[i] > 0 else side
                yield (picture, label, names[label - 1], score, *box, diameter)


def _sample(pixels: npt.NDArray[np.float32], spec: InputSpec) -> Sample:
    """`[C, H, W]` as the network's input: scaled, NoData filled with the mean, padded at the right and bottom."""
    image = torch.from_numpy(pixels) / spec.scale
    valid = torch.isfinite(image).all(dim=0)
    height, width = valid.shape
    margin = (0, -width % PAD_MULTIPLE, 0, -height % PAD_MULTIPLE)
    image, valid = F.pad(image, margin), F.pad(valid, margin, value=False)
    fill = torch.tensor(spec.mean, dtype=torch.float32)[:, None, None]
    return Sample(
        image=torch.where(valid, image, fill),
        valid=valid,
        crowns=Crowns.empty(),
        semantic=None,
        crown_diameter_px=None,
        density=None,
        key=0,
        picture="",
        gsd_m=spec.gsd_m,
        size_hw_px=(height, width),
        core_xyxy_px=(0, 0, width, height),
    )
