"""Windows and pictures become plots: seams do not count, trees count once."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from drawn import SPEC, drawn_sample, perfect
from surveyed import Pair, metrics_of, part, placed, seen_as

from cabruca.config.schema import Config, ValidationConfig
from cabruca.ground import Ground
from cabruca.measuring import metric_names
from cabruca.metrics.agroforestry import agroforestry_names
from cabruca.metrics.evaluator import Evaluator
from cabruca.runtime import Runtime
from cabruca.structures import CroppedMasks, Regions, collate

GRID = [(20.0 + 40 * i, 20.0 + 40 * j, 15.0, 1 + (i + j) % 2) for i in range(6) for j in range(6)]
"""36 trees, 40 px apart, on 240 px: some lie on the lines between windows of 120 px."""


def same(a: dict[str, float], b: dict[str, float], skip: tuple[str, ...] = ()) -> None:
    names = agroforestry_names(SPEC.instance_classes, inventory=False)
    assert {n: a[n] for n in names if not n.startswith(skip)} == pytest.approx(
        {n: b[n] for n in names if not n.startswith(skip)}, nan_ok=True, abs=1e-9
    )


def test_a_grid_of_windows_is_the_picture() -> None:
    """Neighbours across the seams count, and a crown that a seam splits counts once."""
    whole = drawn_sample(GRID, size=240)
    ground = Ground.alone("0", (240, 240), 0.1)
    whole = dataclasses.replace(whole, ground=ground, crown_diameter_px=None)
    cut = [part(whole, x, y, side=120, context=40, ground=ground) for x in (0, 120) for y in (0, 120)]
    out = metrics_of([(whole, perfect(whole))])
    same(metrics_of(cut), out)
    assert out["nearest_neighbour_mean_m"] == pytest.approx(4.0)
    assert out["stem_density_per_ha"] == pytest.approx(36 / (24 * 24) * 1e4)
    assert out["voronoi_cv"] == pytest.approx(0.0, abs=1e-9)
    assert out["crown_iou_mean"] == out["species_accuracy"] == 1.0


def test_pictures_that_touch_are_one_plot() -> None:
    """Two trees, each alone in its picture: neighbours where the pictures touch, alone where they do not."""
    left, right = ([(100, 60, 20, 1)],) * 2, ([(40, 60, 20, 2)],) * 2
    pairs = [seen_as(*left, index=0), seen_as(*right, index=1)]
    touching = metrics_of([placed(pairs[0], 0, 0), placed(pairs[1], 12.8, 0)])
    assert touching["nearest_neighbour_mean_m_true"] == pytest.approx(12.8 + 4 - 10)
    assert touching["cacao_in_shade_share"] == 1.0
    for apart in ([placed(pairs[0], 0, 0), placed(pairs[1], 20, 0)], pairs):
        out = metrics_of(apart)
        assert math.isnan(out["nearest_neighbour_mean_m_true"])
        assert out["cacao_in_shade_share"] == 0.0
        assert [out["plot_area_ha"], touching["plot_area_ha"]] == pytest.approx([2 * 12.8**2 / 1e4] * 2)


def test_two_planes_never_touch() -> None:
    pairs = [seen_as([(64, 64, 20, 1)], [], index=i) for i in range(2)]
    out = metrics_of([placed(pairs[0], 0, 0, plane="EPSG:31984"), placed(pairs[1], 0, 0, plane="EPSG:31983")])
    assert math.isnan(out["nearest_neighbour_mean_m_true"])
    assert out["stem_density_per_ha_true"] == pytest.approx(2 / (2 * 12.8**2) * 1e4)


def test_a_tree_in_overlapping_pictures_counts_once() -> None:
    """Pictures that share 6.4 m: one tree lies in both; another is cut by the second picture's edge."""
    left = [(100.0, 40.0, 20.0, 1), (68.0, 100.0, 20.0, 2), (20.0, 20.0, 10.0, 1)]
    right = [(100.0 - 64, 40.0, 20.0, 1)]
    one, (sample, _) = seen_as(left, left, index=0), seen_as(right, right, index=1)
    part_box = torch.tensor([[0.0, 80.0, 24.0, 120.0]])
    crowns = dataclasses.replace(
        sample.crowns,
        boxes_xyxy_px=torch.cat([sample.crowns.boxes_xyxy_px, part_box]),
        labels=torch.tensor([1, 2]),
        masks=CroppedMasks.empty(2),
        diameter_px=torch.tensor([40.0, 30.0]),
        centre_xy_px=torch.cat([sample.crowns.centre_xy_px, torch.tensor([[12.0, 100.0]])]),
    )
    cut = dataclasses.replace(sample, crowns=crowns)
    out = metrics_of([placed(one, 0, 0), placed((cut, perfect(cut)), 6.4, 0)])
    assert out["total_count_true"] == 5  # counted picture by picture
    assert out["plot_area_ha"] == pytest.approx(12.8 * 19.2 / 1e4)
    assert out["stem_density_per_ha_true"] == pytest.approx(3 / (12.8 * 19.2) * 1e4)
    assert out["stem_density_per_ha"] == out["stem_density_per_ha_true"]
    assert out["cacao_f1"] == out["shade_f1"] == 1.0


def test_neighbours_that_lie_close_in_one_picture_stay_two() -> None:
    close = [(50.0, 50.0, 20.0, 1), (54.0, 50.0, 18.0, 2)]
    one, other = seen_as(close, close, index=0), seen_as([], [], index=1)
    out = metrics_of([placed(one, 0, 0), placed(other, 12.8, 0)])
    assert out["stem_density_per_ha_true"] == pytest.approx(2 / (12.8 * 25.6) * 1e4)


def test_ignored_ground_is_neither_area_nor_trees() -> None:
    sample, _ = seen_as([(30, 30, 16, 1), (90, 90, 16, 1)], [], gsd_m=1.0)
    regions = Regions(torch.tensor([[64.0, 64.0, 128.0, 128.0]]), torch.tensor([0]), CroppedMasks.empty(1))
    ignoring = dataclasses.replace(sample, crowns=dataclasses.replace(sample.crowns, ignored=regions), semantic=None)
    found = dataclasses.replace(perfect(sample), semantic=None)
    out = metrics_of([(ignoring, found)])
    assert out["plot_area_ha"] == pytest.approx(0.75 * 128**2 / 1e4)
    assert out["stem_density_per_ha_true"] == out["stem_density_per_ha"] == pytest.approx(1 / (0.75 * 128**2) * 1e4)
    assert out["canopy_cover_true"] == pytest.approx(math.pi * 256 / (0.75 * 128**2), rel=0.02)


def test_known_scales_are_not_mixed_with_unknown_ones() -> None:
    discs = [(30, 30, 10, 1), (90, 30, 10, 1)]
    out = metrics_of([seen_as(discs, discs, index=0), seen_as(discs, discs, index=1, gsd_m=None)])
    assert out["nearest_neighbour_mean_m"] == pytest.approx(6.0)
    assert math.isnan(out["nearest_neighbour_mean_px"])
    assert out["crown_diameter_mae_px"] == pytest.approx(0.0, abs=0.2)
    assert out["plot_area_ha"] == pytest.approx(12.8**2 / 1e4)
    assert out["cacao_recall"] == 1.0  # over both


@pytest.mark.parametrize(
    "pairs", [[], [seen_as([], [])], [seen_as([(60, 60, 20, 1)], [])]], ids=["none", "empty", "one"]
)
def test_every_name_is_there_whatever_the_data(pairs: list[Pair]) -> None:
    out = metrics_of(pairs)
    assert agroforestry_names(SPEC.instance_classes, inventory=False) <= set(out)
    assert set(out) <= metric_names(Config(), SPEC)


def test_switched_off() -> None:
    out = metrics_of([seen_as(GRID[:4], GRID[:4], size=240)], calculate_agroforestry_metrics=False)
    assert not set(out) & agroforestry_names(SPEC.instance_classes, inventory=False)
    off = Config(validation=ValidationConfig(calculate_agroforestry_metrics=False))
    assert not metric_names(off, SPEC) & agroforestry_names(SPEC.instance_classes, inventory=True)


def test_without_the_instance_head_the_canopy_is_still_known() -> None:
    sample, found = seen_as(GRID[:4], [], size=240)
    e = Evaluator(SPEC.instance_classes, SPEC.semantic_classes, ValidationConfig(), min_visible_share=0.3)
    e.add(collate([sample]), [found])
    out = e.compute(Runtime.single(), heads=("semantic",))
    assert math.isnan(out["cacao_recall"])
    assert math.isnan(out["stem_density_per_ha"])
    assert out["canopy_cover"] == 0.0
    assert out["canopy_cover_true"] > 0.04
    assert out["stem_density_per_ha_true"] > 0
