"""What is drawn of a validation is what its metrics were made of: closed forms, and equality with the metrics."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import SPEC, drawn_sample, perfect
from surveyed import Pair, part, seen_as
from test_detection import BOTH, NAMES, random_records
from test_ignored_metrics import scene

from cabruca.config.schema import ValidationConfig
from cabruca.findings import RECALL, SCORES, Findings
from cabruca.ground import Ground
from cabruca.metrics.detection import detect
from cabruca.metrics.evaluator import Evaluator
from cabruca.metrics.records import picture_records
from cabruca.runtime import Runtime
from cabruca.structures import collate

TRUE = [(30.0, 30.0, 10.0, 1), (90.0, 30.0, 10.0, 1), (30.0, 90.0, 14.0, 1), (90.0, 90.0, 12.0, 2)]
"""Three cacao, one shade."""


def measured(
    pairs: list[Pair], scores: dict[str, float] | None = None, **settings: object
) -> tuple[dict[str, float], Findings]:
    config = ValidationConfig(score_threshold=0.5).model_copy(update=settings)
    e = Evaluator(SPEC.instance_classes, SPEC.semantic_classes, config, min_visible_share=0.3, scores=scores)
    for sample, found in pairs:
        e.add(collate([sample]), [found])
    return e.measure(Runtime.single(), mask_labels=BOTH)


def scored(pair: Pair, *scores: float) -> Pair:
    return pair[0], replace(pair[1], scores=torch.tensor(scores))


@pytest.mark.parametrize(("crowns", "cap"), [(12, 100), (150, 300), (150, 60)])
def test_the_area_under_the_curve_is_the_mean_average_precision(crowns: int, cap: int) -> None:
    found = detect(random_records(3, crowns, seed=crowns), NAMES, max_detections=cap, mask_labels=BOTH)
    assert [curve.kind for curve in found.curves] == ["segm", "segm"]
    for curve in found.curves:
        assert curve.precision.mean() == pytest.approx(found.metrics[f"segm_mAP_50/{curve.name}"], abs=1e-9)
    mean = np.mean([curve.precision.mean() for curve in found.curves])
    assert mean == pytest.approx(found.metrics["mAP_50"], abs=1e-9)
    assert 0.05 < mean < 0.95


@pytest.mark.parametrize("masks", [True, False])
def test_hits_and_finds_lead_to_the_same_area(masks: bool) -> None:
    """The precision of all prefixes, made here from hits and finds alone, has COCO's area, ignored regions included."""
    scenes = [scene(i, masks=True) for i in range(4)]
    records = [
        picture_records(collate([s]), [p], num_semantic_classes=6, min_visible_share=0.3, max_detections=100)[0]
        for s, p, _ in scenes
    ]
    cut = [np.round(r.found.scores, 2) for r in records]  # a threshold each
    records = [replace(r, found=replace(r.found, scores=s)) for r, s in zip(records, cut, strict=True)]
    for curve in detect(records, NAMES, max_detections=100, mask_labels=BOTH if masks else ()).curves:
        assert curve.kind == ("segm" if masks else "bbox")
        recall, precision = curve.hits / curve.truths, curve.hits / np.maximum(curve.found, 1)
        area = np.mean([precision[recall >= level - 1e-12].max(initial=0.0) for level in RECALL])
        # thresholds tie what COCO orders, so the prefixes are a part of COCO's
        assert area <= curve.precision.mean() + 1e-9
        assert area == pytest.approx(curve.precision.mean(), abs=0.05)


def test_f1_by_hand() -> None:
    """Three true cacao: found at 0.9 and 0.6, nothing there at 0.7; the third is never found."""
    seen = [TRUE[0], (64.0, 64.0, 8.0, 1), TRUE[1], TRUE[3]]
    _, found = measured([scored(seen_as(TRUE, seen), 0.9, 0.7, 0.6, 0.95)])
    cacao, shade = found.curves
    assert (cacao.truths, shade.truths) == (3, 1)
    expected = {0.0: 4 / 6, 0.6: 4 / 6, 0.61: 2 / 5, 0.7: 2 / 5, 0.71: 2 / 4, 0.9: 2 / 4, 0.91: 0.0, 1.0: 0.0}
    for score, value in expected.items():
        assert cacao.f1[round(100 * score)] == pytest.approx(value), score
    assert cacao.best == (0.3, pytest.approx(4 / 6))
    # precisions 1, 1/2, 2/3 at recalls 1/3, 1/3, 2/3: the best at or beyond each level
    assert cacao.precision.mean() == pytest.approx((34 * 1.0 + 33 * 2 / 3) / 101)
    assert shade.f1[95] == 1.0
    assert SCORES[95] == 0.95


def test_confusion_by_hand_and_as_the_counts() -> None:
    """One cacao right, one taken for shade, one missed; the shade tree right; one cacao where nothing is."""
    seen = [TRUE[0], (90.0, 30.0, 10.0, 2), TRUE[3], (64.0, 60.0, 8.0, 1)]
    metrics, found = measured([seen_as(TRUE, seen)])
    assert found.confusion is not None
    assert found.confusion.tolist() == [[1, 1, 1], [0, 1, 0], [1, 0, 0]]
    for k, short in enumerate(("cacao", "shade")):
        assert found.confusion[k].sum() == metrics[f"{short}_count_true"]
        assert found.confusion[:, k].sum() == metrics[f"{short}_count"]
        assert found.confusion[k, k] / found.confusion[k].sum() == pytest.approx(metrics[f"{short}_recall"])
        assert found.confusion[k, k] / found.confusion[:, k].sum() == pytest.approx(metrics[f"{short}_precision"])
    pairs = found.confusion[:2, :2]
    assert np.trace(pairs) / pairs.sum() == pytest.approx(metrics["species_accuracy"])


def test_confusion_leaves_out_what_is_not_counted() -> None:
    _, found = measured([scored(seen_as(TRUE, TRUE), 0.9, 0.4, 0.9, 0.9)])
    assert found.confusion is not None
    assert found.confusion.tolist() == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_counts_are_of_pictures_and_sum_to_the_counts() -> None:
    sample = drawn_sample(TRUE)
    ground = Ground.alone("0", (128, 128), 0.1)
    windows = [part(sample, x, y, side=64, context=32, ground=ground) for x in (0, 64) for y in (0, 64)]
    other = drawn_sample(TRUE[2:], index=7)
    metrics, found = measured([*windows, (other, perfect(drawn_sample(TRUE[3:], index=7)))])
    assert found.pictures == ("0", "7")
    assert found.counts.tolist() == [[[3, 3], [1, 1]], [[1, 0], [1, 1]]]
    assert found.counts[:, 0].sum(axis=0).tolist() == [metrics["cacao_count_true"], metrics["cacao_count"]]
    assert found.counts.sum(axis=(0, 1)).tolist() == [metrics["total_count_true"], metrics["total_count"]]


def test_counts_are_the_metrics_with_a_score_a_class() -> None:
    """Cacao counts from 0.3 on, shade from 0.8 on: two cacao below the configured 0.5 do, a shade above it does not."""
    seen = scored(seen_as(TRUE, TRUE), 0.4, 0.9, 0.35, 0.7)
    metrics, found = measured([seen], scores={"cacao_tree": 0.3, "shade_tree": 0.8})
    assert found.counts.sum(axis=0).tolist() == [[3, 3], [1, 0]]
    for k, short in enumerate(("cacao", "shade")):
        assert found.counts[:, k].sum(axis=0).tolist() == [metrics[f"{short}_count_true"], metrics[f"{short}_count"]]
        assert found.confusion is not None
        assert found.confusion[:, k].sum() == metrics[f"{short}_count"]
    assert found.score_threshold == (0.5, 0.3, 0.8)
    assert Findings.from_dict(json.loads(json.dumps(found.to_dict()))).score_threshold == (0.5, 0.3, 0.8)


@pytest.mark.parametrize(("gsd_m", "unit"), [(0.1, "m"), (None, "px")])
def test_diameters_by_hand(gsd_m: float | None, unit: str) -> None:
    """Found crowns are 0.9 times as wide; at 0.1 m a pixel radii of 10, 10, 14, 12 px are 2 to 2.8 m."""
    seen = [(x, y, 0.9 * r, label) for x, y, r, label in TRUE]
    metrics, found = measured([seen_as(TRUE, seen, gsd_m=gsd_m)])
    scale = gsd_m or 1.0
    assert found.unit == unit
    assert found.labels.tolist() == [1, 1, 1, 2]
    assert found.diameters[:, 0] == pytest.approx([20 * scale, 20 * scale, 28 * scale, 24 * scale])
    assert found.diameters[:, 1] == pytest.approx(0.9 * found.diameters[:, 0], rel=0.03)  # of drawn pixels
    off = found.diameters[:, 1] - found.diameters[:, 0]
    assert np.abs(off).mean() == pytest.approx(metrics[f"crown_diameter_mae_{unit}"])
    assert off.mean() == pytest.approx(metrics[f"crown_diameter_bias_{unit}"])


def test_land_cover_is_that_of_the_metrics() -> None:
    metrics, found = measured([seen_as(TRUE, TRUE[:3])])
    assert found.pixels is not None
    assert found.pixels.sum() == 128 * 128
    both, either = found.pixels[1, 1], found.pixels[1].sum() + found.pixels[:, 1].sum() - found.pixels[1, 1]
    assert both / either == pytest.approx(metrics["iou/cacao_tree"])


def test_two_ranks_find_what_one_finds() -> None:
    pairs = [seen_as(TRUE, TRUE[:3], index=i) for i in range(3)]
    _, alone = measured(pairs)
    config = ValidationConfig(score_threshold=0.5)
    parts = []
    for share in ([0, 1], [1, 2]):  # picture 1 pads an uneven split
        e = Evaluator(SPEC.instance_classes, SPEC.semantic_classes, config, min_visible_share=0.3)
        for i in share:
            e.add(collate([pairs[i][0]]), [pairs[i][1]])
        parts.append(e.records)

    class TwoRanks(Runtime):
        def gather(self, value: object) -> list[object]:
            return list(parts)

    both = TwoRanks(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
    _, gathered = e.measure(both, mask_labels=BOTH)
    assert gathered.to_dict() == alone.to_dict()
    assert gathered.counts.sum() == 3 * (4 + 3)


def test_without_crowns_or_heads_there_is_less_to_draw() -> None:
    empty = drawn_sample([])
    _, found = measured([(empty, perfect(empty))])
    assert found.curves == ()
    assert found.counts.tolist() == [[[0, 0], [0, 0]]]
    _, off = measured([seen_as(TRUE, TRUE)], calculate_agroforestry_metrics=False)
    assert off.confusion is None
    assert len(off.diameters) == 0
    assert len(off.curves) == 2
    e = Evaluator(SPEC.instance_classes, SPEC.semantic_classes, ValidationConfig(), min_visible_share=0.3)
    e.add(collate([drawn_sample(TRUE)]), [perfect(drawn_sample(TRUE))])
    _, cover = e.measure(Runtime.single(), heads=("semantic",))
    assert (cover.curves, cover.confusion, cover.pictures) == ((), None, ())
    assert cover.pixels is not None


def test_findings_go_through_json() -> None:
    _, found = measured([seen_as(TRUE, TRUE[1:])])
    back = Findings.from_dict(json.loads(json.dumps(found.to_dict())))
    assert back.to_dict() == found.to_dict()
    assert back.curves[0].f1 == pytest.approx(found.curves[0].f1)
