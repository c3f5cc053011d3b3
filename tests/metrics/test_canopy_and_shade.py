"""Canopy cover, shade distribution and distance to shade on drawn circles."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from surveyed import metrics_of, placed, seen_as

from cabruca.metrics.shade import shade_metrics

BIG = 256
WHERE = [(40.0, 40.0, 30.0, 2), (200.0, 60.0, 20.0, 2)]
CACAO = [(100.0, 180.0, 12.0, 1), (180.0, 200.0, 12.0, 1)]


@pytest.mark.parametrize("source", ["semantic", "masks", "boxes"])
def test_cover_is_the_circles_share_of_the_ground(source: str) -> None:
    """From the semantic head; without it from the union of the crowns, by their masks or by the ellipses in their
    boxes. Two circles that lie on each other cover what one covers."""
    truth = [*WHERE, (40.0, 40.0, 28.0, 1)]
    sample, found = seen_as(truth, WHERE[:1], size=BIG, masks=source != "boxes")
    if source != "semantic":
        found = dataclasses.replace(found, semantic=None)
    out = metrics_of([(sample, found)])
    assert out["canopy_cover_true"] == pytest.approx(math.pi * (30**2 + 20**2) / BIG**2, abs=0.001)
    assert out["canopy_cover"] == pytest.approx(math.pi * 30**2 / BIG**2, abs=0.001)
    assert out["canopy_cover_error"] == pytest.approx(math.pi * 20**2 / BIG**2, abs=0.001)


def test_unknown_ground_is_left_out_of_cover_and_area() -> None:
    sample, found = seen_as([(64, 64, 20, 1)], [], size=128, gsd_m=1.0)
    valid = torch.ones(128, 128, dtype=torch.bool)
    valid[:, 96:] = False
    semantic = sample.semantic.clone()
    semantic[~valid] = 255
    out = metrics_of([(dataclasses.replace(sample, valid=valid, semantic=semantic), found)])
    assert out["plot_area_ha"] == pytest.approx(96 * 128 / 1e4)
    assert out["canopy_cover_true"] == pytest.approx(math.pi * 400 / (96 * 128), rel=0.01)
    assert out["stem_density_per_ha_true"] == pytest.approx(1e4 / (96 * 128))


def test_shade_in_the_right_places_scores_one_and_elsewhere_zero() -> None:
    same, moved = seen_as(WHERE, WHERE, size=BIG), seen_as(WHERE[:1], WHERE[1:], size=BIG)
    assert metrics_of([same])["shade_distribution_score"] == 1.0
    assert metrics_of([moved])["shade_distribution_score"] == 0.0


def test_shade_score_by_hand_on_ten_metres() -> None:
    """Squares of 10 m are 100 px here. True: one disc each in squares (0, 0) and (1, 1); found: the first alone. The
    shares are 1/2, 1/2 and 1, 0: total variation 1/2."""
    a, b = (50.0, 50.0, 30.0, 2), (150.0, 150.0, 30.0, 2)
    for cacao in ([], CACAO[:1]):  # cacao plays no part
        assert metrics_of([seen_as([a, b, *cacao], [a], size=BIG)])["shade_distribution_score"] == pytest.approx(0.5)
    near = (60.0, 60.0, 30.0, 2)  # moved, and still in its square
    assert metrics_of([seen_as([a, b], [near, b], size=BIG)])["shade_distribution_score"] == pytest.approx(
        1.0, abs=0.01
    )


def test_shade_score_is_in_eighths_of_the_side_without_a_scale() -> None:
    a, b = (16.0, 16.0, 12.0, 2), (48.0, 16.0, 12.0, 2)  # squares of 256 / 8 = 32 px
    out = metrics_of([seen_as([a, b], [a], size=BIG, gsd_m=None)])
    assert out["shade_distribution_score"] == pytest.approx(0.5)
    assert metrics_of([seen_as([a], [b], size=BIG, gsd_m=None)])["shade_distribution_score"] == 0.0


def test_shade_score_without_shade() -> None:
    assert metrics_of([seen_as(CACAO, CACAO, size=BIG)])["shade_distribution_score"] == 1.0
    assert metrics_of([seen_as(CACAO, WHERE, size=BIG)])["shade_distribution_score"] == 0.0
    assert metrics_of([seen_as(WHERE, CACAO, size=BIG)])["shade_distribution_score"] == 0.0


def test_ground_that_two_pictures_show_weighs_once() -> None:
    """The left half of the ground is in two pictures: its shade is a third of all, not a half."""
    one, two, lone = (40.0, 40.0, 20.0, 2), (88.0, 40.0, 20.0, 2), (40.0, 40.0, 20.0, 2)
    shown = [seen_as([one, two], [], size=128, gsd_m=1.0, index=i) for i in (0, 1)]
    other = seen_as([lone], [lone], size=128, gsd_m=1.0, index=2)
    pairs = [placed(shown[0], 0, 0, gsd_m=1.0), placed(shown[1], 0, 0, gsd_m=1.0), placed(other, 128, 0, gsd_m=1.0)]
    out = metrics_of(pairs, shade_grid_m=128.0)
    assert out["canopy_cover_true"] == pytest.approx(3 * math.pi * 400 / (2 * 128**2), rel=0.01)
    assert out["shade_distribution_score"] == pytest.approx(1 / 3, rel=0.01)


def test_shade_and_cacao_by_hand() -> None:
    cacao = np.array([[0.0, 0.0], [12.0, 0.0], [30.0, 0.0], [100.0, 0.0]])
    out = shade_metrics([cacao, cacao[:1]], [np.array([[0.0, 5.0], [30.0, 10.0]]), np.zeros((0, 2))], 12.0)
    assert out["shade_to_cacao_ratio"] == 2 / 5
    assert out["cacao_in_shade_share"] == 2 / 5  # 5 and 10 m; 13 m is too far, and the other plot has no shade
    assert out["shade_distance_mean"] == pytest.approx((5 + 13 + 10 + math.hypot(70, 10)) / 4)


def test_shade_in_metres_and_pixels() -> None:
    """Circles 100 px apart are 10 m apart at 0.1 m: within 12 m, not within 8 m."""
    discs = [(50.0, 50.0, 20.0, 1), (150.0, 50.0, 30.0, 2)]
    near, far = (metrics_of([seen_as(discs, discs, size=BIG)], shade_radius_m=r) for r in (12.0, 8.0))
    assert (near["cacao_in_shade_share"], far["cacao_in_shade_share"]) == (1.0, 0.0)
    assert near["shade_distance_mean_m_true"] == pytest.approx(10.0)
    assert near["shade_trees_per_ha_true"] == pytest.approx(1e4 / 25.6**2)
    assert near["shade_to_cacao_ratio"] == 1.0
    plain = metrics_of([seen_as(discs, discs, size=BIG, gsd_m=None)])
    assert plain["shade_distance_mean_px"] == 100.0
    unknown = (
        "cacao_in_shade_share",
        "shade_distance_mean_m",
        "shade_trees_per_ha",
        "plot_area_ha",
        "stem_density_per_ha",
    )
    assert all(math.isnan(plain[name]) for name in unknown)
    assert plain["shade_to_cacao_ratio"] == 1.0


@pytest.mark.parametrize(
    ("cacao", "shade", "expected"),
    [(0, 0, (math.nan, math.nan)), (0, 1, (math.nan, math.nan)), (1, 0, (0.0, 0.0)), (1, 1, (1.0, 1.0))],
)
def test_shade_without_trees_and_with_one(cacao: int, shade: int, expected: tuple[float, float]) -> None:
    out = shade_metrics([np.zeros((cacao, 2))], [np.zeros((shade, 2))], 12.0)
    assert (out["shade_to_cacao_ratio"], out["cacao_in_shade_share"]) == pytest.approx(expected, nan_ok=True)
    assert math.isnan(out["shade_distance_mean"]) == (not (cacao and shade))
