"""Matched crowns: the Hungarian matching beside all permutations, species by hand, overlap of circles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from surveyed import metrics_of, placed, seen_as
from torchvision.ops import box_iou as torchvision_box_iou

from cabruca.metrics.matching import best_pairs, box_iou, overlap_metrics, species_metrics

DISCS = [(30.0, 40.0, 14.0, 1), (64.0, 90.0, 18.0, 2), (100.0, 30.0, 10.0, 1), (104.0, 104.0, 16.0, 1)]


@pytest.mark.parametrize("seed", range(30))
def test_the_matching_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gain = np.where(rng.random((5, 6)) < 0.5, rng.uniform(0.5, 1.0, (5, 6)), 0.0)
    rows, columns = np.nonzero(gain)
    chosen = best_pairs(rows, columns, gain[rows, columns], (5, 6))
    assert len(set(rows[chosen])) == len(set(columns[chosen])) == len(chosen)
    best = max(sum(gain[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(6), 5))
    assert gain[rows[chosen], columns[chosen]].sum() == pytest.approx(best)


def test_box_iou_is_torchvision_s_pair_by_pair_and_all_with_all() -> None:
    corners = np.random.default_rng(2).uniform(0, 40, (19, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes[3] = [5, 5, 5, 9]  # no area
    found, true = boxes[:12], boxes[12:]
    wanted = torchvision_box_iou(torch.from_numpy(found), torch.from_numpy(true)).numpy()
    assert box_iou(found[:, None], true) == pytest.approx(wanted)
    assert box_iou(found[:7], true) == pytest.approx(wanted.diagonal())
    assert box_iou(found[:0, None], true).shape == (0, 7)
    assert box_iou(found[:, None], true[:0]).shape == (12, 0)


def test_species_by_hand() -> None:
    """5 true cacao, 3 true shade; 4 cacao found (3 right, 1 is shade), 3 shade found (1 right, 1 is cacao, 1 is
    nothing)."""
    found, true = np.array([1, 1, 1, 1, 2, 2, 2]), np.array([1, 1, 1, 1, 1, 2, 2, 2])
    pairs = [(np.array([1, 1, 1]), np.array([1, 1, 1])), (np.array([1, 2, 2]), np.array([2, 2, 1]))]
    out = species_metrics(found, true, pairs, ("cacao_tree", "shade_tree"))
    assert out["species_accuracy"] == pytest.approx(4 / 6)
    assert (out["cacao_precision"], out["cacao_recall"]) == (3 / 4, 3 / 5)
    assert out["cacao_f1"] == pytest.approx(2 * 3 / (4 + 5))
    assert (out["shade_precision"], out["shade_recall"]) == (1 / 3, 1 / 3)
    assert out["shade_f1"] == pytest.approx(2 / 6)


def test_quartiles() -> None:
    out = overlap_metrics(np.array([0.5, 0.6, 0.7, 0.8, 0.9]))
    assert list(out.values()) == pytest.approx([0.7, 0.6, 0.7, 0.8])
    assert all(math.isnan(v) for v in overlap_metrics(np.zeros(0)).values())


def circle_iou(r: float, d: float) -> float:
    """Of two circles of radius r whose centres are d apart."""
    lens = 2 * r**2 * math.acos(d / (2 * r)) - d / 2 * math.sqrt(4 * r**2 - d**2)
    return lens / (2 * math.pi * r**2 - lens)


def test_overlap_of_moved_circles() -> None:
    out = metrics_of([seen_as([(60, 60, 30, 1)], [(70, 60, 30, 1)])])
    assert out["crown_iou_mean"] == pytest.approx(circle_iou(30, 10), abs=0.01)
    assert out["species_accuracy"] == out["cacao_f1"] == 1.0
    far = metrics_of([seen_as([(60, 60, 30, 1)], [(90, 60, 30, 1)])])  # IoU 0.24
    assert math.isnan(far["crown_iou_mean"])
    assert far["cacao_f1"] == far["cacao_recall"] == 0.0


def test_boxes_are_compared_where_there_are_no_masks() -> None:
    out = metrics_of([seen_as([(60, 60, 30, 1)], [(70, 60, 30, 1)], masks=False)])
    assert out["crown_iou_mean"] == pytest.approx(50 / 70)


def test_diameter_error_in_metres_and_pixels() -> None:
    truth, found = [(40, 40, 20, 1), (90, 90, 20, 2)], [(40, 40, 22, 1), (90, 90, 16, 2)]
    out = metrics_of([seen_as(truth, found, gsd_m=0.1)])
    assert out["crown_diameter_mae_m"] == pytest.approx((0.4 + 0.8) / 2, abs=0.02)
    assert out["crown_diameter_bias_m"] == pytest.approx((0.4 - 0.8) / 2, abs=0.02)
    assert out["crown_head_diameter_mae_m"] == pytest.approx((0.4 + 0.8) / 2, abs=0.001)
    assert out["crown_diameter_mean_m_true"] == pytest.approx(4.0)
    assert math.isnan(out["crown_diameter_mae_px"])
    plain = metrics_of([seen_as(truth, found, gsd_m=None)])
    assert plain["crown_diameter_mae_px"] == pytest.approx(6.0, abs=0.2)
    assert math.isnan(plain["crown_diameter_mae_m"])


def test_a_wrong_species_is_a_match_and_a_doubtful_crown_is_none() -> None:
    called = [(x, y, r, 3 - label if i == 0 else label) for i, (x, y, r, label) in enumerate(DISCS)]
    out = metrics_of([seen_as(DISCS, called)])
    assert out["species_accuracy"] == 3 / 4
    assert out["crown_iou_mean"] == 1.0
    assert (out["cacao_recall"], out["shade_precision"]) == (2 / 3, 1 / 2)
    assert math.isnan(metrics_of([seen_as(DISCS, called)], score_threshold=0.95)["species_accuracy"])


def test_no_truth_and_nothing_found() -> None:
    nothing_true, nothing_found = metrics_of([seen_as([], DISCS)]), metrics_of([seen_as(DISCS, [])])
    assert nothing_true["cacao_precision"] == nothing_true["cacao_f1"] == 0.0
    assert math.isnan(nothing_true["cacao_recall"])
    assert nothing_found["cacao_recall"] == nothing_found["cacao_f1"] == 0.0
    assert math.isnan(nothing_found["cacao_precision"])
    neither = metrics_of([seen_as([], [])])
    assert all(
        math.isnan(neither[n]) for n in ("species_accuracy", "cacao_f1", "crown_iou_mean", "crown_diameter_mae_m")
    )


def test_crowns_match_across_pictures_of_one_plot() -> None:
    """The truth lies in the left picture, the detection reached over into the right one: their boxes are compared."""
    left, right = seen_as([(120, 60, 20, 1)], []), seen_as([], [(-8 + 4, 60, 20, 1)], index=1)
    out = metrics_of([placed(left, 0, 0), placed(right, 12.8, 0)])
    assert out["cacao_f1"] == 0.0  # its centre lies outside its own picture, so nobody counts it
    right = seen_as([], [(2, 60, 20, 1)], index=1)
    out = metrics_of([placed(left, 0, 0), placed(right, 12.8, 0)])
    assert out["cacao_f1"] == 1.0
    assert out["crown_iou_mean"] == pytest.approx((40 - 10) / (40 + 10))


@pytest.mark.parametrize("seed", range(10))
def test_a_large_component_is_matched_as_a_small_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sparse method gives the same sum as the table of all with all, also where not everyone finds a partner."""
    rng = np.random.default_rng(seed)
    gain = np.where(rng.random((40, 60)) < 0.1, rng.uniform(0.5, 1.0, (40, 60)), 0.0)
    gain[3:6], gain[3:6, 7] = 0.0, 0.9  # three that want the same one
    for own in (gain, gain.T):
        rows, columns = np.nonzero(own)
        sums = []
        for limit in (10**6, 0):
            monkeypatch.setattr("cabruca.metrics.matching.DENSE_UP_TO", limit)
            chosen = best_pairs(rows, columns, own[rows, columns], own.shape)
            assert len(set(rows[chosen])) == len(set(columns[chosen])) == len(chosen)
            sums.append(own[rows, columns][chosen].sum())
        assert sums[0] == pytest.approx(sums[1])


def test_a_chain_of_eight_thousand_crowns_is_matched() -> None:
    """Each touches two: a table of all with all would hold 64 million numbers, twice."""
    n = 8000
    rows, columns = np.repeat(np.arange(n), 2), (np.arange(n)[:, None] + [0, 1]).ravel() % n
    chosen = best_pairs(rows, columns, np.tile([0.9, 0.6], n), (n, n))
    assert (columns[chosen] == rows[chosen]).all()
    assert len(chosen) == n
