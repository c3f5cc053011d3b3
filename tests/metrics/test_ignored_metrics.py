"""Ignored regions in the metrics: COCO's crowd, as pycocotools counts it, and out of the counts; heads that are off."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from drawn import SPEC, crowns_of, disc_crop, drawn_sample, perfect
from pycocotools import mask as oracle_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cabruca.config.schema import ValidationConfig
from cabruca.metrics.detection import detection_metrics
from cabruca.metrics.evaluator import Evaluator
from cabruca.metrics.records import picture_records
from cabruca.runtime import Runtime
from cabruca.structures import CroppedMasks, Prediction, Regions, Sample, collate

NAMES = ("cacao_tree", "shade_tree")
BOTH = frozenset({1, 2})
SIDE = 256

Disc = tuple[float, float, float, int]


def regions_of(discs: list[Disc], *, masks: bool) -> Regions:
    boxes = torch.tensor([[x - r, y - r, x + r, y + r] for x, y, r, _ in discs]).reshape(-1, 4)
    crops = [disc_crop(x, y, r) if masks else None for x, y, r, _ in discs]
    return Regions(boxes, torch.tensor([d[3] for d in discs], dtype=torch.int64), CroppedMasks.from_crops(crops))


def scene(index: int, *, masks: bool) -> tuple[Sample, Prediction, list[Disc]]:
    """Truth, two crowds and one region of every class, and detections: of crowns, inside regions, and elsewhere."""
    rng = np.random.default_rng(index)
    discs = [(*rng.uniform(20, 236, 2), rng.uniform(6, 14), int(rng.integers(1, 3))) for _ in range(14)]
    groups = [(*rng.uniform(50, 206, 2), 34.0, k) for k in (1, 2, 0)]
    sample = drawn_sample(discs, size=SIDE, index=index)
    crowns = dataclasses.replace(sample.crowns, ignored=regions_of(groups, masks=masks))
    sample = dataclasses.replace(sample, crowns=crowns)
    moved = [(x + rng.normal(0, 2), y + rng.normal(0, 2), r * rng.uniform(0.8, 1.2), k) for x, y, r, k in discs[:11]]
    inside = [
        (x + rng.uniform(-20, 20), y + rng.uniform(-20, 20), 9.0, int(rng.integers(1, 3)))
        for x, y, _, _ in groups
        for _ in range(4)
    ]
    astray = [(*rng.uniform(20, 236, 2), 8.0, int(rng.integers(1, 3))) for _ in range(4)]
    found = crowns_of([*moved, *inside, *astray])
    scores = torch.from_numpy(np.sort(rng.uniform(0.06, 1, len(found)))[::-1].copy()).float()
    order = torch.from_numpy(rng.permutation(len(found)))
    boxes = found.boxes_xyxy_px[order]
    return (
        sample,
        Prediction(boxes, scores, found.labels[order], found.masks.select(order), sample.semantic, None, None),
        groups,
    )


def coco_of(scenes: list[tuple[Sample, Prediction, list[Disc]]], kind: str, masks: bool) -> tuple[float, ...]:
    """pycocotools on annotations written out here."""
    rows: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for i, (sample, found, groups) in enumerate(scenes, 1):
        dense = sample.crowns.masks.dense(SIDE, SIDE).numpy()
        for k, (box, label) in enumerate(zip(sample.crowns.boxes_xyxy_px, sample.crowns.labels, strict=True)):
            rows.append({**annotation(i, int(label), box, dense[k]), "iscrowd": 0})
        crowds = regions_of(groups, masks=True).masks.dense(SIDE, SIDE).numpy()
        for k, (x, y, r, label) in enumerate(groups):
            bitmap = crowds[k]
            box = torch.tensor([x - r, y - r, x + r, y + r])
            for own in (1, 2) if label == 0 else (label,):
                row = {**annotation(i, own, box, bitmap), "iscrowd": 1}
                if not masks:
                    x0, y0, x1, y1 = box.tolist()
                    row["segmentation"] = [[x0, y0, x1, y0, x1, y1, x0, y1]]
                rows.append(row)
        dense = found.masks.dense(SIDE, SIDE).numpy()  # type: ignore[union-attr]
        for k, (box, label, score) in enumerate(zip(found.boxes_xyxy_px, found.labels, found.scores, strict=True)):
            own = annotation(i, int(label), box, dense[k])
            results.append({**own, "score": float(score)} | ({} if kind == "segm" else {"segmentation": []}))
    for n, row in enumerate(rows, 1):
        row["id"] = n
    for result in results:
        result.pop("segmentation" if kind == "bbox" else "bbox")
        result.pop("area")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        images = [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, len(scenes) + 1)]
        truth.dataset = {"images": images, "annotations": rows, "categories": [{"id": 1}, {"id": 2}]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    p = evaluation.eval["precision"][:, :, :, 0, -1]
    return tuple(float(q[q > -1].mean()) for q in (p, p[0], p[5]))


def annotation(image: int, label: int, box: torch.Tensor, bitmap: np.ndarray) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(v) for v in box)
    code = oracle_codec.encode(np.asfortranarray(bitmap))
    return {
        "image_id": image,
        "category_id": label,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "segmentation": code,
    }


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_regions_are_crowds_as_pycocotools_has_them(kind: str, masks: bool) -> None:
    scenes = [scene(i, masks=masks) for i in range(4)]
    records = [
        picture_records(collate([s]), [p], num_semantic_classes=6, min_visible_share=0.3, max_detections=100)[0]
        for s, p, _ in scenes
    ]
    ours = detection_metrics(records, NAMES, max_detections=100, mask_labels=BOTH)
    for summary, expected in zip(("mAP", "mAP_50", "mAP_75"), coco_of(scenes, kind, masks), strict=True):
        assert ours[f"{kind}_{summary}"] == pytest.approx(expected, abs=1e-6)
    bare = [dataclasses.replace(r, ignored=records[0].ignored.__class__(*empty_set())) for r in records]
    assert (
        detection_metrics(bare, NAMES, max_detections=100, mask_labels=BOTH)[f"{kind}_mAP_50"] < ours[f"{kind}_mAP_50"]
    ), "without the regions the same detections are wrong"


def empty_set() -> tuple[Any, ...]:
    return np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0), [], np.zeros(0, bool)


def evaluator() -> Evaluator:
    return Evaluator(SPEC.instance_classes, SPEC.semantic_classes, ValidationConfig(), min_visible_share=0.3)


def test_ground_of_regions_is_out_of_the_counts_of_both_sides() -> None:
    """A cacao crowd on the left, a region of every class at the bottom right; perfect predictions everywhere."""
    discs = [(30.0, 30.0, 10.0, 1), (30.0, 60.0, 10.0, 2), (96.0, 30.0, 10.0, 1), (100.0, 100.0, 10.0, 2)]
    sample = drawn_sample(discs)
    ignored = Regions(
        torch.tensor([[0.0, 0, 60, 128], [80, 80, 128, 128]]), torch.tensor([1, 0]), CroppedMasks.empty(2)
    )
    sample = dataclasses.replace(sample, crowns=dataclasses.replace(sample.crowns, ignored=ignored))
    e = evaluator()
    e.add(collate([sample]), [perfect(sample)])
    found = e.compute(Runtime.single(), mask_labels=BOTH)
    assert (found["cacao_count"], found["shade_count"]) == (1, 1)
    assert (found["cacao_count_true"], found["shade_count_true"]) == (1, 1)
    assert found["bbox_mAP"] == pytest.approx(1.0)


def test_what_no_head_says_is_unknown_not_zero() -> None:
    sample = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 2)])
    e = evaluator()
    nothing = Prediction(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), None, sample.semantic, None, None
    )
    e.add(collate([sample]), [nothing])
    cover = e.compute(Runtime.single(), heads=("semantic", "crown"))
    crowns = {k for k in cover if "mAP" in k or "_count" in k}
    assert {k for k in crowns if not math.isnan(cover[k])} == {k for k in crowns if k.endswith("_count_true")}
    assert cover["total_count_true"] == 2
    assert cover["mIoU"] == cover["canopy_iou"] == 1.0
    other = e.compute(Runtime.single(), heads=("instance",))
    assert other.keys() == cover.keys()
    assert math.isnan(other["canopy_iou"])
    assert math.isnan(other["mIoU"])
    assert other["total_count"] == other["bbox_mAP"] == 0
