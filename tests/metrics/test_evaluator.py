"""Metrics over the whole validation set: land cover, counts, windows, ranks."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from drawn import SPEC, drawn_sample, perfect

from cabruca.config.schema import ValidationConfig
from cabruca.metrics.counts import count_accuracy
from cabruca.metrics.evaluator import Evaluator
from cabruca.metrics.segmentation import semantic_metrics
from cabruca.runtime import Runtime
from cabruca.structures import CroppedMasks, Prediction, Sample, collate

ALONE = Runtime.single()
DISCS = [(30.0, 40.0, 14.0, 1), (64.0, 70.0, 18.0, 2), (100.0, 30.0, 10.0, 1), (96.0, 100.0, 16.0, 1)]


def evaluator(**changes: object) -> Evaluator:
    config = ValidationConfig(score_threshold=0.5).model_copy(update=changes)
    return Evaluator(SPEC.instance_classes, SPEC.semantic_classes, config, min_visible_share=0.3)


def metrics_of(pairs: list[tuple[Sample, Prediction]]) -> dict[str, float]:
    e = evaluator()
    for sample, found in pairs:
        e.add(collate([sample]), [found])
    return e.compute(ALONE, mask_labels=frozenset({1, 2}))


def test_iou_by_hand() -> None:
    pixels = np.array([[50, 10, 0], [5, 30, 5], [0, 0, 0]])
    out = semantic_metrics(pixels, ("background", "cacao_tree", "shade_tree"), canopy=("cacao_tree", "shade_tree"))
    assert out["iou/background"] == pytest.approx(50 / 65)
    assert out["iou/cacao_tree"] == pytest.approx(30 / 50)
    assert out["iou/shade_tree"] == 0.0
    assert out["mIoU"] == pytest.approx((50 / 65 + 0.6 + 0) / 3)
    assert out["canopy_iou"] == pytest.approx(35 / 50)  # both canopy 30 + 5, either 50


def test_a_class_in_neither_has_no_iou() -> None:
    out = semantic_metrics(np.diag([4, 6, 0]), ("a", "b", "c"), canopy=("b",))
    assert math.isnan(out["iou/c"])
    assert out["mIoU"] == 1.0
    assert all(math.isnan(v) for v in semantic_metrics(None, ("a", "b"), canopy=("b",)).values())


def test_perfect_over_two_pictures() -> None:
    samples = [drawn_sample(DISCS, index=0), drawn_sample(DISCS[:2], index=1)]
    out = metrics_of([(s, perfect(s)) for s in samples])
    assert out["mIoU"] == out["canopy_iou"] == 1.0
    assert out["cacao_count"] == out["cacao_count_true"] == 4
    assert out["shade_count_true"] == 2
    assert out["total_count_accuracy"] == 1.0


def test_counts_use_the_threshold_and_the_whole_area() -> None:
    one, two = drawn_sample(DISCS, index=0), drawn_sample([], index=1)
    doubtful = perfect(one, score=0.4)
    out = metrics_of([(one, doubtful), (two, dataclasses.replace(perfect(one), semantic=two.semantic))])
    # the crowns of picture 1 are below the threshold, those invented in picture 2 make up for them
    assert out["cacao_count"] == out["cacao_count_true"] == 3
    assert out["total_count_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("found", "true", "expected"), [(0, 0, 1.0), (1, 0, 0.0), (8, 10, 0.8), (12, 10, 0.8), (500, 10, 0.0)]
)
def test_count_accuracy_is_defined_everywhere(found: int, true: int, expected: float) -> None:
    assert count_accuracy(found, true) == pytest.approx(expected)


def test_a_picture_seen_twice_counts_once() -> None:
    s = drawn_sample(DISCS)
    assert metrics_of([(s, perfect(s)), (s, perfect(s))])["total_count_true"] == 4


def windows_of(sample: Sample, side: int, context: int) -> list[Sample]:
    """Cut a picture into grid windows with context; cores cover it once."""
    size = sample.image.shape[-1]
    out = []
    for y in range(0, size, side):
        for x in range(0, size, side):
            x0, y0, x1, y1 = (
                max(0, x - context),
                max(0, y - context),
                min(size, x + side + context),
                min(size, y + side + context),
            )
            shift = torch.tensor([x0, y0, x0, y0], dtype=torch.float32)
            crowns = sample.crowns
            masks = CroppedMasks(crowns.masks.pixels, crowns.masks.rect_xywh_px - torch.tensor([x0, y0, 0, 0]))
            moved = dataclasses.replace(
                crowns,
                boxes_xyxy_px=crowns.boxes_xyxy_px - shift,
                masks=masks,
                centre_xy_px=crowns.centre_xy_px - shift[:2],
            )
            out.append(
                dataclasses.replace(
                    sample,
                    image=sample.image[:, y0:y1, x0:x1],
                    valid=sample.valid[y0:y1, x0:x1],
                    semantic=sample.semantic[y0:y1, x0:x1],
                    crown_diameter_px=None,
                    density=None,
                    crowns=moved,
                    picture=f"0:{y}:{x}",
                    size_hw_px=(y1 - y0, x1 - x0),
                    core_xyxy_px=(x - x0, y - y0, x - x0 + side, y - y0 + side),
                )
            )
    return out


def test_a_grid_counts_every_tree_and_every_pixel_once() -> None:
    sample = drawn_sample(DISCS)
    whole = metrics_of([(sample, perfect(sample))])
    cut = metrics_of([(w, perfect(w)) for w in windows_of(sample, 64, 32)])
    for name in ("cacao_count", "cacao_count_true", "shade_count", "shade_count_true", "total_count_accuracy"):
        assert cut[name] == whole[name], name
    e_whole, e_cut = evaluator(), evaluator()
    e_whole.add(collate([sample]), [perfect(sample)])
    for w in windows_of(sample, 64, 32):
        e_cut.add(collate([w]), [perfect(w)])
    total = sum(r.confusion for r in e_cut.records.values())
    assert np.array_equal(total, next(iter(e_whole.records.values())).confusion)
    assert total.sum() == 128 * 128
    assert cut["bbox_mAP"] == cut["segm_mAP"] == pytest.approx(1.0)


def test_ranks_are_gathered_by_picture() -> None:
    """Two ranks that both saw picture 1 (padding of an uneven split) give what one rank gives."""
    samples = [drawn_sample(DISCS, index=i) for i in range(3)]
    shares = [[0, 1], [1, 2]]
    parts = []
    for share in shares:
        e = evaluator()
        for i in share:
            e.add(collate([samples[i]]), [perfect(samples[i])])
        parts.append(e.records)

    class TwoRanks(Runtime):
        def gather(self, value: object) -> list[object]:
            return list(parts)

    both = TwoRanks(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
    gathered = evaluator().compute(both, mask_labels=frozenset({1, 2}))
    alone = metrics_of([(s, perfect(s)) for s in samples])
    assert gathered == pytest.approx(alone, nan_ok=True)
    assert gathered["total_count_true"] == 12
