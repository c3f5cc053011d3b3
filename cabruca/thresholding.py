"""`cabruca evaluate --tune-thresholds`: score and NMS of a checkpoint, fitted to a labelled data set.

A pass over the data without masks or dense heads. It reads whole pictures and takes every detection before suppression,
so that each NMS overlap is applied to the same detections. Whatever makes the best F1 at the score that would be
counted from is kept; of equal ones, what the checkpoint had. How predict joins the crowns of two windows is not tuned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torchvision.ops import batched_nms

from cabruca import operating_point
from cabruca.config.schema import Config
from cabruca.crops import CroppedMasks
from cabruca.errors import DataError
from cabruca.evaluation import load_model, with_categories
from cabruca.metrics.records import PictureRecord, picture_records
from cabruca.metrics.thresholds import CHOSEN_BY, Choice, ChosenBy, choose_scores
from cabruca.model.segmenter import Segmenter
from cabruca.operating_point import OperatingPoint
from cabruca.runtime import Runtime, choose_device, set_threads, thread_budget
from cabruca.structures import Batch, InputSpec, Prediction
from cabruca.task import evaluation_windows, window_batches
from cabruca.train.precision import resolve

NMS_IOU = (0.3, 0.4, 0.5, 0.6, 0.7)
"""The values that are tried."""


def tune_thresholds(
    checkpoint: str | Path,
    images: str | Path,
    annotations: str | Path,
    *,
    category_map: Mapping[str, str] | None = None,
    device: str = "auto",
    chosen_by: ChosenBy = CHOSEN_BY,
) -> OperatingPoint:
    """Find the operating point of a checkpoint on a data set, and write it into the checkpoint's sidecar.

    Args: as `evaluation.evaluate`. chosen_by: see `metrics.thresholds`.

    Raises:
        CheckpointError, DataError, DeviceError: one line each; DataError also where nothing can be tuned: the network
            has no instance head, the labels no crowns, or nothing is found.
    """
    model, config, spec = load_model(checkpoint)
    if model.instance is None:
        raise DataError(
            f"{checkpoint} has no instance head, so there are no crowns to count; leave --tune-thresholds out"
        )
    tuner = Tuner(model, config, with_categories(spec, category_map or {}), device, chosen_by)
    nms_iou, found = tuner.nms(images, annotations)
    if not found:
        raise DataError(
            f"{annotations} holds no crown of a class that {checkpoint} finds any of; tune on labels of its classes"
        )
    point = OperatingPoint(
        {name: choice.score for name, choice in found.items()},
        chosen_by,
        nms_iou,
        measured={name: choice.measured() for name, choice in found.items()},
        found_on=str(annotations),
    )
    operating_point.write(Path(checkpoint), point)
    return point


class Tuner:
    """A network that gives every detection, and the settings it is read with."""

    def __init__(self, model: Segmenter, config: Config, spec: InputSpec, device: str, chosen_by: ChosenBy) -> None:
        budget = thread_budget(config.data.num_workers)
        set_threads(budget)
        self.runtime = Runtime.single(choose_device(device), loaders=budget.loaders)
        self.config, self.spec, self.chosen_by = config, spec, chosen_by
        self.precision = resolve(config.training, self.runtime.device.type)
        self.own_nms, self.cap = config.validation.nms_iou, config.validation.max_detections
        self.model = model.to(self.runtime.device, self.precision.dtype)
        assert model.instance is not None
        model.instance.mask_trained.zero_()  # boxes say which crown is which; masks are most of the work
        model.semantic = model.crown = model.density = None
        model.nms_iou, model.max_detections = 1.0, 1_000_000

    def nms(self, images: str | Path, annotations: str | Path) -> tuple[float, dict[str, Choice]]:
        """The overlap of the best F1, and the scores that go with it."""
        values = sorted({*NMS_IOU, self.own_nms}, key=lambda v: abs(v - self.own_nms))
        records: dict[float, list[PictureRecord]] = {value: [] for value in values}
        for batch, found in self.passes(images, annotations, self.config):
            for value in values:
                records[value] += self.records(batch, [suppressed(f, value, self.cap) for f in found])
        scores = {value: self._scores(records[value]) for value in values}
        best = max(values, key=lambda value: _quality(scores[value]))  # of equal ones the first: the checkpoint's own
        return best, scores[best]

    @torch.no_grad()
    def passes(
        self, images: str | Path, annotations: str | Path, config: Config
    ) -> Iterator[tuple[Batch, list[Prediction]]]:
        """Batches without masks, and every detection in them."""
        windows = evaluation_windows(config, self.spec, images, annotations)
        for batch in window_batches(windows, self.runtime, config, self.model):
            with self.precision.autocast():
                output = self.model(batch, losses=False, predictions=True)
            bare = [replace(c, masks=CroppedMasks.from_crops([None] * len(c))) for c in batch.crowns]
            yield replace(batch, crowns=bare), output.predictions or []

    def records(self, batch: Batch, found: Sequence[Prediction]) -> list[PictureRecord]:
        """What the metrics keep of a batch."""
        return picture_records(
            batch,
            found,
            num_semantic_classes=len(self.spec.semantic_classes),
            min_visible_share=self.config.data.min_visible_share,
            max_detections=self.cap,
        )

    def _scores(self, records: Sequence[PictureRecord]) -> dict[str, Choice]:
        return choose_scores(records, self.spec.instance_classes, chosen_by=self.chosen_by)


def suppressed(found: Prediction, nms_iou: float, cap: int) -> Prediction:
    """Detections of which those of a class that overlap more are one (non-maximum suppression), the best `cap`."""
    keep = batched_nms(found.boxes_xyxy_px, found.scores, found.labels, nms_iou)[:cap]
    return replace(
        found, boxes_xyxy_px=found.boxes_xyxy_px[keep], scores=found.scores[keep], labels=found.labels[keep], masks=None
    )


def _quality(scores: Mapping[str, Choice]) -> float:
    """Mean F1 over the classes, to four digits: less is no difference."""
    return round(sum(choice.f1 for choice in scores.values()) / len(scores), 4) if scores else -1.0
