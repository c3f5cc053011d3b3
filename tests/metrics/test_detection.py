"""Average precision: equal to pycocotools, and right where the answer is known."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from drawn import crowns_of, drawn_sample, perfect
from pycocotools import mask as oracle_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cabruca.metrics.detection import _found, _truth, detection_metrics
from cabruca.metrics.records import PictureRecord, picture_records, rle_of_crop
from cabruca.metrics.survey import Least
from cabruca.structures import Prediction, Sample, collate

NAMES = ("cacao_tree", "shade_tree")
BOTH = frozenset({1, 2})


def record(sample: Sample, found: Prediction, cap: int = 300, score_threshold: Least = 0.0) -> PictureRecord:
    return picture_records(
        collate([sample]),
        [found],
        num_semantic_classes=6,
        min_visible_share=0.3,
        max_detections=cap,
        score_threshold=score_threshold,
    )[0]


def random_records(pictures: int, crowns: int, seed: int) -> list[PictureRecord]:
    """Truth, and detections that are jittered, mislabelled, missed or invented."""
    out = []
    for p in range(pictures):
        rng = np.random.default_rng(seed * 100 + p)
        discs = [(*rng.uniform(20, 236, 2), rng.uniform(5, 15), int(rng.integers(1, 3))) for _ in range(crowns)]
        sample = drawn_sample(discs, size=256, index=p)
        moved = [
            (x + rng.normal(0, 2), y + rng.normal(0, 2), r * rng.uniform(0.8, 1.2), k if rng.random() < 0.9 else 3 - k)
            for x, y, r, k in discs
            if rng.random() < 0.85
        ] + [(*rng.uniform(20, 236, 2), rng.uniform(5, 15), int(rng.integers(1, 3))) for _ in range(crowns // 3)]
        scores = torch.from_numpy(np.sort(rng.uniform(0.05, 1, len(moved)))[::-1].copy()).float()
        found = crowns_of(moved)
        inside = Prediction(
            found.boxes_xyxy_px.clamp(0, 256), scores, found.labels, found.masks, sample.semantic, None, None
        )
        out.append(record(sample, inside))
    return out


def oracle(records: list[PictureRecord], kind: Any, cap: int) -> tuple[float, float, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _truth(records, [1, 2], kind)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(_found(records, [1, 2], kind)), kind)
        evaluation.params.maxDets = [1, 10, cap]
        evaluation.evaluate()
        evaluation.accumulate()
    p = evaluation.eval["precision"][:, :, :, 0, -1]
    return tuple(float(q[q > -1].mean()) for q in (p, p[0], p[5]))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize(("crowns", "cap"), [(12, 100), (150, 300), (150, 60)])
def test_equals_pycocotools(kind: str, crowns: int, cap: int) -> None:
    records = random_records(3, crowns, seed=crowns)
    ours = detection_metrics(records, NAMES, max_detections=cap, mask_labels=BOTH)
    for summary, expected in zip(("mAP", "mAP_50", "mAP_75"), oracle(records, kind, cap), strict=True):
        assert ours[f"{kind}_{summary}"] == pytest.approx(expected, abs=1e-6)
    assert 0.02 < ours[f"{kind}_mAP"] < 0.98


def test_perfect_is_one_and_nothing_found_is_zero() -> None:
    sample = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 2)])
    right = detection_metrics([record(sample, perfect(sample))], NAMES, max_detections=300, mask_labels=BOTH)
    for name in ("bbox_mAP", "segm_mAP", "mAP", "mAP_50", "bbox_mAP/cacao_tree", "segm_mAP_75/shade_tree"):
        assert right[name] == pytest.approx(1.0)
    blind = dataclasses.replace(perfect(sample), boxes_xyxy_px=torch.zeros(0, 4), scores=torch.zeros(0))
    blind = dataclasses.replace(blind, labels=torch.zeros(0, dtype=torch.long), masks=crowns_of([]).masks)
    none = detection_metrics([record(sample, blind)], NAMES, max_detections=300, mask_labels=BOTH)
    assert none["bbox_mAP"] == none["segm_mAP"] == none["mAP_50"] == 0.0


def test_no_truth_is_undefined_not_zero() -> None:
    empty = drawn_sample([])
    metrics = detection_metrics([record(empty, perfect(empty))], NAMES, max_detections=300, mask_labels=BOTH)
    assert all(math.isnan(v) for v in metrics.values())


def test_a_class_without_truth_is_left_out_of_the_mean() -> None:
    sample = drawn_sample([(40, 40, 14, 1)])
    metrics = detection_metrics([record(sample, perfect(sample))], NAMES, max_detections=300, mask_labels=BOTH)
    assert metrics["bbox_mAP"] == pytest.approx(1.0)
    assert math.isnan(metrics["bbox_mAP/shade_tree"])


def test_a_class_that_never_had_masks_has_no_mask_metrics() -> None:
    sample = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 2)])
    records = [record(sample, perfect(sample))]
    metrics = detection_metrics(records, NAMES, max_detections=300, mask_labels=frozenset({2}))
    assert "segm_mAP/cacao_tree" not in metrics
    assert metrics["segm_mAP/shade_tree"] == pytest.approx(1.0)
    none = detection_metrics(records, NAMES, max_detections=300, mask_labels=frozenset())
    assert math.isnan(none["segm_mAP"])
    assert none["mAP"] == none["bbox_mAP"]


def test_a_crown_known_by_its_box_neither_rewards_nor_punishes_a_mask() -> None:
    full = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 1)])
    half = crowns_of([(40, 40, 14, 1), (90, 80, 20, 1)])
    keep = crowns_of([(40, 40, 14, 1)]).masks
    rect = torch.cat([keep.rect_xywh_px, torch.zeros(1, 4, dtype=torch.long)])
    mixed = dataclasses.replace(half, masks=dataclasses.replace(keep, rect_xywh_px=rect))
    sample = dataclasses.replace(full, crowns=mixed)
    metrics = detection_metrics([record(sample, perfect(full))], NAMES, max_detections=300, mask_labels=BOTH)
    assert metrics["segm_mAP"] == pytest.approx(1.0)
    assert metrics["bbox_mAP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("cap", "score", "threshold", "said"),
    [
        (2, 0.9, 0.5, True),
        (3, 0.9, 0.5, False),
        (2, 0.9, (0.0, 0.5, 0.95), False),  # one of the two counts
        (2, 0.33, 0.5, False),  # an untrained network: as many as the cap allows, none sure
    ],
)
def test_the_cap_is_reached_by_crowns_that_count(cap: int, score: float, threshold: Least, said: bool) -> None:
    sample = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 2)])
    assert record(sample, perfect(sample, score=score), cap, score_threshold=threshold).at_cap is said


def test_a_network_that_calls_everything_a_crown_needs_no_larger_cap() -> None:
    """Five that are sure, two in the truth."""
    sample = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 2)])
    wild = perfect(drawn_sample([(20.0 + 20 * k, 60.0, 8.0, 1) for k in range(5)]))
    assert not record(sample, wild, 5, score_threshold=0.5).at_cap
    assert record(sample, wild, 4, score_threshold=0.5).at_cap, "half of the cap is there: some may be missing"


def test_run_lengths_equal_the_oracle() -> None:
    rng = np.random.default_rng(0)
    for x, y, h, w in [(0, 0, 9, 7), (3, 5, 20, 11), (40, 33, 31, 24), (10, 10, 1, 1), (0, 0, 64, 64)]:
        crop = (rng.random((h, w)) < 0.6).astype(np.uint8)
        dense = np.zeros((64, 64), np.uint8)
        dense[y : y + h, x : x + w] = crop
        ours = rle_of_crop(crop, x, y, height=64, width=64)
        theirs = oracle_codec.encode(np.asfortranarray(dense))
        counts = ours["counts"].encode() if isinstance(ours["counts"], str) else ours["counts"]
        assert counts == theirs["counts"]
    empty = rle_of_crop(np.zeros((0, 0), np.uint8), 0, 0, height=8, width=8)
    assert oracle_codec.area({"size": [8, 8], "counts": empty["counts"]}) == 0
