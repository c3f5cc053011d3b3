"""`cabruca evaluate --tune-thresholds`: score, NMS and merging of a checkpoint, fitted to a labelled data set.

Two passes over the data without masks or dense heads. The first reads whole pictures and takes every detection before
suppression, so that each NMS overlap is applied to the same detections. The second cuts the pictures into windows of
the training tile's size, as predict does, and joins their crowns with each pair of merging thresholds. Whatever makes
the best F1 at the score that would be counted from is kept; of equal ones, what the checkpoint had.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import batched_nms

from cabruca import operating_point
from cabruca.config.schema import Config
from cabruca.crops import CroppedMasks
from cabruca.errors import DataError
from cabruca.evaluation import load_model, with_categories
from cabruca.metrics.merging import WindowCrowns, merged, overlaps_of, ranked
from cabruca.metrics.records import PLAUSIBLE, CrownSet, PictureRecord, guessed_centres, picture_records
from cabruca.metrics.thresholds import CHOSEN_BY, Choice, ChosenBy, choose_scores
from cabruca.model.segmenter import Segmenter
from cabruca.operating_point import OperatingPoint
from cabruca.runtime import Runtime, choose_device, set_threads, thread_budget
from cabruca.structures import Batch, InputSpec, Prediction
from cabruca.task import evaluation_windows, window_batches
from cabruca.train.precision import resolve

NMS_IOU = (0.3, 0.4, 0.5, 0.6, 0.7)
MERGE_IOU = (0.2, 0.3, 0.4, 0.5, 0.6)
MERGE_CONTAINMENT = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The values that are tried."""

MERGE_DEFAULT = (0.5, 0.7)
"""Of equally good ones the nearest to this is taken."""

_log = logging.getLogger("cabruca")


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
    iou, containment, merged_scores = tuner.merging(images, annotations, nms_iou)
    found = merged_scores or found
    point = OperatingPoint(
        {name: choice.score for name, choice in found.items()},
        chosen_by,
        nms_iou,
        iou,
        containment,
        {name: choice.measured() for name, choice in found.items()},
        str(annotations),
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

    def merging(
        self, images: str | Path, annotations: str | Path, nms_iou: float
    ) -> tuple[float | None, float | None, dict[str, Choice]]:
        """Thresholds of merging, and the scores that go with them; None where no picture is larger than a window."""
        validation = self.config.validation.model_copy(update={"max_side_px": self.spec.tile_size})
        pictures: dict[str, list[tuple[WindowCrowns, PictureRecord]]] = {}
        for batch, found in self.passes(images, annotations, self.config.model_copy(update={"validation": validation})):
            kept = [suppressed(f, nms_iou, self.cap) for f in found]
            for b, record in enumerate(self.records(batch, kept)):
                ground = batch.grounds[b]
                assert ground is not None
                own = pictures.setdefault(ground.picture, [])
                own.append((_crowns(batch, b, kept[b], len(own)), _whole_truth(batch, b, record)))
        if all(len(windows) == 1 for windows in pictures.values()):
            _log.info(
                "no picture is larger than %d px: the thresholds of merging stay predict's own", self.spec.tile_size
            )
            return None, None, {}
        grid = [(i, c) for i in MERGE_IOU for c in MERGE_CONTAINMENT]
        grid.sort(key=lambda pair: abs(pair[0] - MERGE_DEFAULT[0]) + abs(pair[1] - MERGE_DEFAULT[1]))
        records: dict[tuple[float, float], list[PictureRecord]] = {pair: [] for pair in grid}
        for windows in pictures.values():
            crowns = ranked(WindowCrowns.join([c for c, _ in windows]))
            pairs = overlaps_of(crowns)
            for iou, containment in grid:
                stays = merged(len(crowns.labels), pairs, iou=iou, containment=containment)
                records[iou, containment].append(_joined(crowns, stays, [r for _, r in windows]))
        scores = {pair: self._scores(records[pair]) for pair in grid}
        best = max(grid, key=lambda pair: _quality(scores[pair]))
        return *best, scores[best]

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


def _crowns(batch: Batch, b: int, found: Prediction, window: int) -> WindowCrowns:
    """Plausible crowns of a window in px of its picture."""
    likely = (found.scores >= PLAUSIBLE).numpy()
    boxes = found.boxes_xyxy_px.numpy().astype(np.float64)[likely]
    centres = guessed_centres(boxes, batch.sizes_hw_px[b], batch.inner_edges[b])
    return WindowCrowns(
        boxes + np.tile(_offset(batch, b), 2),
        found.labels.numpy()[likely].astype(np.int64),
        found.scores.numpy()[likely].astype(np.float64),
        np.full(len(boxes), window),
        ~np.asarray(np.isclose(centres, (boxes[:, :2] + boxes[:, 2:]) / 2).all(axis=1)),
    )


def _whole_truth(batch: Batch, b: int, record: PictureRecord) -> PictureRecord:
    """The crowns that the window's core counts, whole, and its ignored regions, in px of the picture."""
    crowns, (x0, y0, x1, y1) = batch.crowns[b].to("cpu"), batch.cores_xyxy_px[b]
    x, y = crowns.centre_xy_px.T
    home = ((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).numpy()
    labels = crowns.labels.numpy()[home]
    core = np.array([*_offset(batch, b)]) + np.array([x0, y0])
    ignored = record.ignored.boxes_xywh_px + np.array([*core, 0, 0])
    return replace(
        record,
        truth=_set(crowns.boxes_xyxy_px.numpy()[home] + np.tile(_offset(batch, b), 2), labels, np.ones(len(labels))),
        ignored=replace(record.ignored, boxes_xywh_px=ignored),
    )


def _joined(crowns: WindowCrowns, stays: Any, windows: Sequence[PictureRecord]) -> PictureRecord:
    """One record of a picture: all its windows' truth beside the crowns that stay."""
    ignored = _joined_sets([r.ignored for r in windows])
    truth = _uncounted(_joined_sets([r.truth for r in windows]), ignored)
    found = _set(crowns.boxes[stays], crowns.labels[stays], crowns.scores[stays])
    return replace(windows[0], truth=truth, found=_uncounted(found, ignored), ignored=ignored)


def _uncounted(crowns: CrownSet, ignored: CrownSet) -> CrownSet:
    """Those whose centre lies in the box of an ignored region of their class do not count."""
    boxes, regions = crowns.boxes_xywh_px, ignored.boxes_xywh_px
    centre = (boxes[:, :2] + boxes[:, 2:] / 2)[:, None]
    inside = ((centre >= regions[None, :, :2]) & (centre < regions[None, :, :2] + regions[None, :, 2:])).all(axis=2)
    inside &= (ignored.labels[None] == crowns.labels[:, None]) | (ignored.labels[None] == 0)
    return replace(crowns, counted=crowns.counted & ~inside.any(axis=1))


def _set(boxes_xyxy: Any, labels: Any, scores: Any) -> CrownSet:
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    n = len(boxes)
    return CrownSet(xywh, labels.astype(np.int64), scores.astype(np.float64), [None] * n, np.ones(n, dtype=np.bool_))


def _joined_sets(parts: Sequence[CrownSet]) -> CrownSet:
    names = ("boxes_xywh_px", "labels", "scores")
    boxes, labels, scores = (np.concatenate([getattr(p, name) for p in parts]) for name in names)
    masks = [mask for p in parts for mask in p.masks]
    return CrownSet(boxes, labels, scores, masks, np.concatenate([p.counted for p in parts]))


def _offset(batch: Batch, b: int) -> tuple[int, int]:
    ground = batch.grounds[b]
    assert ground is not None
    return ground.offset_xy_px
