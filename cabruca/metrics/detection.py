"""Average precision of boxes and masks, as COCO defines it (Lin et al. 2014), through faster-coco-eval."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from cabruca.findings import SCORES, ClassCurve
from cabruca.metrics.records import PictureRecord

Kind = Literal["bbox", "segm"]
SUMMARIES = ("mAP", "mAP_50", "mAP_75")
NAN = float("nan")


@dataclass(frozen=True)
class Detected:
    """`detection_metrics`, and for each class that occurs in the truth the curve behind its plain `mAP_50`."""

    metrics: dict[str, float]
    curves: tuple[ClassCurve, ...]


def detection_metrics(
    records: Sequence[PictureRecord], names: Sequence[str], *, max_detections: int, mask_labels: Collection[int]
) -> dict[str, float]:
    """`bbox_mAP`, `_50`, `_75`, `segm_mAP...`, each per class (`bbox_mAP/cacao_tree`), and plain `mAP...`.

    mAP is the mean over IoU 0.50, 0.55 .. 0.95 and 101 recall levels, `_50` and `_75` at one IoU; means run over the
    classes that occur in the truth. Plain `mAP` takes a class's masks where it has masks, else its boxes. Without
    any truth the numbers are undefined (NaN).

    Args:
        names: instance classes; names[0] is label 1.
        max_detections: detections a picture that take part, best first.
        mask_labels: labels whose masks the network has learnt; the others have no `segm_*`.
    """
    return detect(records, names, max_detections=max_detections, mask_labels=mask_labels).metrics


def detect(
    records: Sequence[PictureRecord], names: Sequence[str], *, max_detections: int, mask_labels: Collection[int]
) -> Detected:
    """As `detection_metrics`, with the curves."""
    labels = list(range(1, len(names) + 1))
    with_masks = [k for k in labels if k in mask_labels and _has_true_masks(records, k)]
    out: dict[str, float] = {}
    best: dict[int, tuple[float, float, float]] = {}
    curves: dict[int, ClassCurve] = {}
    kinds: tuple[tuple[Kind, list[int]], ...] = (("bbox", labels), ("segm", with_masks))
    for kind, own in kinds:
        evaluation = _evaluated(records, own, kind, max_detections)
        table = _precision(evaluation, own)
        for i, summary in enumerate(SUMMARIES):
            out[f"{kind}_{summary}"] = _mean([v[i] for v in table.values()])
            out.update({f"{kind}_{summary}/{names[k - 1]}": v[i] for k, v in table.items()})
        best |= table
        shown = [k for k in own if not np.isnan(table[k][1]) and (kind == "segm" or k not in with_masks)]
        curves |= _curves(evaluation, {k: names[k - 1] for k in shown}, kind)
    out.update({summary: _mean([v[i] for v in best.values()]) for i, summary in enumerate(SUMMARIES)})
    return Detected(out, tuple(curves[k] for k in sorted(curves)))


def _mean(values: list[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else NAN


def _has_true_masks(records: Sequence[PictureRecord], label: int) -> bool:
    return any(
        own == label and mask is not None
        for r in records
        for own, mask in zip(r.truth.labels, r.truth.masks, strict=True)
    )


def _evaluated(records: Sequence[PictureRecord], labels: list[int], kind: Kind, cap: int) -> COCOeval_faster | None:
    """COCO's evaluation, done; None where there is no class to look at."""
    if not labels:
        return None
    truth = COCO(_truth(records, labels, kind))
    evaluation = COCOeval_faster(truth, truth.loadRes(_found(records, labels, kind)), kind)
    evaluation.params.maxDets = [1, 10, cap] if cap > 10 else [cap]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _precision(evaluation: COCOeval_faster | None, labels: list[int]) -> dict[int, tuple[float, float, float]]:
    """label -> (mAP, mAP_50, mAP_75); NaN for a class without truth."""
    if evaluation is None:
        return {}
    precision: npt.NDArray[np.float64] = np.asarray(evaluation.eval["precision"])[..., 0, -1]  # [IoU, recall, class]
    return {k: _summaries(precision[..., i]) for i, k in enumerate(labels)}


def _curves(evaluation: COCOeval_faster | None, names: dict[int, str], kind: Kind) -> dict[int, ClassCurve]:
    """label -> its curve at an IoU of 0.5.

    The evaluation's own list of matches mixes all ten IoUs, so the matching is done once more at 0.5 alone, on the
    IoUs that are known already.
    """
    if evaluation is None or not names:
        return {}
    known = dict(evaluation.ious)
    evaluation.computeIoU = lambda image, label: known[image, label]
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.evaluate()
    evaluation.accumulate()
    truth, detections = evaluation.cocoGt.anns, evaluation.cocoDt.anns
    partner = {int(a): int(b) for a, b in (pair.split("_") for pair in evaluation.eval["matched"])}
    ignored = {a for a, b in partner.items() if truth[b]["iscrowd"]}
    out = {}
    for label, name in names.items():
        own = [a for a, d in detections.items() if d["category_id"] == label and a not in ignored]
        scores = np.array([detections[a]["score"] for a in own])
        right = np.array([a in partner for a in own], dtype=np.bool_)
        out[label] = ClassCurve(
            name=name,
            kind=kind,
            truths=sum(t["category_id"] == label and not t["iscrowd"] for t in truth.values()),
            precision=np.asarray(evaluation.eval["precision"])[0, :, evaluation.params.catIds.index(label), 0, -1],
            hits=_at_least(scores[right]),
            found=_at_least(scores),
        )
    return out


def _at_least(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many are `SCORES` or more, int64 `[101]`; a score that is a threshold but for its last bit is counted."""
    return len(scores) - np.searchsorted(np.sort(scores), SCORES - 1e-7, side="left").astype(np.int64)


def _summaries(precision: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """From `[IoU 0.50 .. 0.95, recall]` of one class; -1 marks "no truth"."""
    if precision.size == 0 or (precision < 0).all():
        return NAN, NAN, NAN
    return float(precision.mean()), float(precision[0].mean()), float(precision[5].mean())


def _truth(records: Sequence[PictureRecord], labels: list[int], kind: Kind) -> dict[str, Any]:
    images = [{"id": i, "height": r.size_hw_px[0], "width": r.size_hw_px[1]} for i, r in enumerate(records, 1)]
    annotations: list[dict[str, Any]] = []
    for i, r in enumerate(records, 1):
        for box, label, mask in zip(r.truth.boxes_xywh_px, r.truth.labels, r.truth.masks, strict=True):
            if label not in labels:
                continue
            own: dict[str, Any] = {"id": len(annotations) + 1, "image_id": i, "category_id": int(label), "iscrowd": 0}
            own |= {"bbox": box.tolist(), "area": float(box[2] * box[3])}
            if kind == "segm":
                # a crown known by its box alone neither rewards nor punishes a mask: COCO's "crowd" is ignored
                own |= {"segmentation": mask} if mask is not None else {"segmentation": _rectangle(box), "iscrowd": 1}
            annotations.append(own)
        annotations += _crowds(r, i, labels, kind, first=len(annotations) + 1)
    categories = [{"id": k, "name": str(k)} for k in labels]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _crowds(record: PictureRecord, image: int, labels: list[int], kind: Kind, first: int) -> list[dict[str, Any]]:
    """Ignored regions as COCO's "crowd": a detection mostly inside one is neither right nor wrong. One that is about
    every class is written once a class."""
    regions = record.ignored
    out: list[dict[str, Any]] = []
    for box, label, mask in zip(regions.boxes_xywh_px, regions.labels, regions.masks, strict=True):
        for k in labels if label == 0 else [int(label)] if label in labels else []:
            own: dict[str, Any] = {"id": first + len(out), "image_id": image, "category_id": k, "iscrowd": 1}
            own |= {"bbox": box.tolist(), "area": float(box[2] * box[3])}
            if kind == "segm":
                own["segmentation"] = mask if mask is not None else _rectangle(box)
            out.append(own)
    return out


def _rectangle(box: npt.NDArray[np.float64]) -> list[list[float]]:
    x, y, w, h = (float(v) for v in box)
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _found(records: Sequence[PictureRecord], labels: list[int], kind: Kind) -> list[dict[str, Any]]:
    out = []
    for i, r in enumerate(records, 1):
        for box, label, score, mask in zip(
            r.found.boxes_xywh_px, r.found.labels, r.found.scores, r.found.masks, strict=True
        ):
            if label not in labels or (kind == "segm" and mask is None):
                continue
            own: dict[str, Any] = {"image_id": i, "category_id": int(label), "score": float(score)}
            own |= {"bbox": box.tolist()} if kind == "bbox" else {"segmentation": mask}
            out.append(own)
    return out
