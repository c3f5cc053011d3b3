"""What is ground: ignored regions, NoData in any shape, ground that pictures share, and land cover nobody annotated."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from drawn import SPEC, perfect
from surveyed import Pair, metrics_of, placed, seen_as

from cabruca.config.schema import ValidationConfig
from cabruca.metrics.evaluator import Evaluator
from cabruca.metrics.plots import make_plots, squares_of_planes
from cabruca.metrics.survey import SurveySettings, take_survey
from cabruca.runtime import Runtime
from cabruca.structures import CroppedMasks, Regions, collate

FOUR = [(30.0, 30.0, 10.0, 1), (90.0, 30.0, 10.0, 1), (30.0, 90.0, 10.0, 1), (90.0, 90.0, 10.0, 2)]


def ignoring(pair: Pair, box: list[float], label: int, mask: np.ndarray | None = None) -> Pair:
    masks = CroppedMasks.empty(1) if mask is None else CroppedMasks.from_crops([(int(box[0]), int(box[1]), mask)])
    regions = Regions(torch.tensor([box]), torch.tensor([label]), masks)
    sample, found = pair
    return dataclasses.replace(sample, crowns=dataclasses.replace(sample.crowns, ignored=regions)), found


def knowing(pair: Pair, valid: np.ndarray) -> Pair:
    sample, _ = pair
    sample = dataclasses.replace(sample, valid=torch.from_numpy(valid), semantic=None, density=None)
    return sample, dataclasses.replace(perfect(sample), semantic=None)


def test_a_region_with_a_mask_takes_the_trees_and_the_ground_of_its_mask() -> None:
    """A diagonal of a pixel: its box is the whole picture, and the trees beside it count."""
    out = metrics_of(
        [ignoring(seen_as(FOUR, FOUR, gsd_m=1.0), [0.0, 0.0, 128.0, 128.0], 0, np.eye(128, dtype=np.uint8))]
    )
    area = (128**2 - 128) / 1e4
    assert out["plot_area_ha"] == pytest.approx(area)
    on_it = 2  # centres (30, 30) and (90, 90) lie on the diagonal
    assert out["stem_density_per_ha"] == out["stem_density_per_ha_true"] == pytest.approx((4 - on_it) / area)
    assert out["total_count"] == out["total_count_true"] == 4 - on_it


@pytest.mark.parametrize("box", [[0.0, 0.0, 128.0, 128.0], [0.0, 0.0, 128.0, 64.0]])
def test_a_group_of_one_species_leaves_the_ground_of_the_other(box: list[float]) -> None:
    """Shade trees that stand in a cacao group count, and so does their ground; before, they had none to stand on."""
    shade = [(30.0, 30.0, 16.0, 2), (90.0, 90.0, 16.0, 2)]
    out = metrics_of([ignoring(seen_as(shade, shade, gsd_m=1.0), box, 1)])
    assert out["plot_area_ha"] == pytest.approx(128**2 / 1e4)
    assert out["shade_trees_per_ha_true"] == out["shade_trees_per_ha"] == pytest.approx(2e4 / 128**2)
    assert out["nearest_neighbour_mean_m_true"] == pytest.approx(60 * math.sqrt(2))


SIDE = 256
ROW, COLUMN = np.mgrid[:SIDE, :SIDE] + 0.5
GROUNDS = {
    "diamond": abs(COLUMN - 128) + abs(ROW - 128) < 120,
    "slanted strip": abs(COLUMN - ROW * 0.7 - 20) < 12,
    "disc": (COLUMN - 128) ** 2 + (ROW - 128) ** 2 < 100**2,
    "sparse": np.random.default_rng(0).random((SIDE, SIDE)) < 0.2,
    "dense": np.random.default_rng(1).random((SIDE, SIDE)) < 0.55,
}


@pytest.mark.parametrize("name", GROUNDS)
def test_area_is_that_of_the_known_pixels(name: str) -> None:
    known = GROUNDS[name]
    trees = [(120.0, 120.0, 10.0, 1), (140.0, 170.0, 10.0, 2)]
    out = metrics_of([knowing(seen_as(trees, trees, size=SIDE, gsd_m=1.0), known)])
    assert out["plot_area_ha"] == pytest.approx(known.sum() / 1e4)
    assert out["stem_density_per_ha_true"] == pytest.approx(2e4 / known.sum())
    assert not math.isnan(out["clark_evans_true"])


def test_slanted_ground_in_two_pictures_is_counted_once_to_the_percent() -> None:
    known = GROUNDS["diamond"]
    pairs = [knowing(seen_as([], [], size=SIDE, gsd_m=1.0, index=i), known) for i in (0, 1)]
    out = metrics_of([placed(p, 0, 0, gsd_m=1.0) for p in pairs])
    assert out["plot_area_ha"] == pytest.approx(known.sum() / 1e4, rel=0.01)


def test_squares_count_shared_ground_once_also_where_they_are_not_full() -> None:
    """Pictures of 128 m in squares of 300 m: two show the same ground with a tree on it, one other ground without."""
    tree = [(64.0, 64.0, 30.0, 2)]
    pairs = [placed(seen_as(tree, tree, gsd_m=1.0, index=i), 5, -5, gsd_m=1.0) for i in (0, 1)]
    pairs.append(placed(seen_as([], [], gsd_m=1.0, index=2), 605, -5, gsd_m=1.0))
    out = metrics_of(pairs, shade_grid_m=300.0)
    assert out["plot_area_ha"] == pytest.approx(2 * 128**2 / 1e4)
    assert out["canopy_cover"] == out["canopy_cover_true"] == pytest.approx(math.pi * 900 / (2 * 128**2), rel=0.01)


@pytest.mark.parametrize("shade_grid_m", [10.0, 33.0, 300.0])
def test_squares_add_up_to_the_plot(shade_grid_m: float) -> None:
    """Pictures that share a half and a quarter of their ground."""
    surveys = []
    settings = SurveySettings.of(
        SPEC.instance_classes, SPEC.semantic_classes, score_threshold=0.5, shade_grid_m=shade_grid_m
    )
    for i, (x, y) in enumerate(((0, 0), (64, 0), (32, 96))):
        sample, found = placed(seen_as([], [], gsd_m=1.0, index=i), x + 5, y - 5, gsd_m=1.0)
        nothing = np.zeros(0, np.bool_)
        surveys.append(
            take_survey(
                collate([sample]), 0, found, settings, centres=np.zeros((0, 2)), counted=(nothing, nothing, nothing)
            )
        )
    (squares,) = squares_of_planes(surveys)
    assert squares.areas[:, 0].sum() == pytest.approx(sum(p.area for p in make_plots(surveys)), rel=0.01)
    assert squares.areas[:, 0].max() <= shade_grid_m**2 * 1.1


def test_windows_without_land_cover_truth_are_left_out_without_an_instance_head() -> None:
    """Nobody looked for crowns there: before, that the head found none was written as no canopy."""
    bare, found = seen_as(FOUR, [], gsd_m=1.0)
    bare = dataclasses.replace(bare, semantic=None, density=None)
    all_cacao = dataclasses.replace(found, semantic=torch.ones(128, 128, dtype=torch.uint8))
    annotated = seen_as(FOUR[:1], FOUR[:1], gsd_m=1.0, index=1)
    e = Evaluator(SPEC.instance_classes, SPEC.semantic_classes, ValidationConfig(), min_visible_share=0.3)
    e.add(collate([bare]), [all_cacao])
    alone = e.compute(Runtime.single(), heads=("semantic",))
    assert math.isnan(alone["canopy_cover"])
    assert math.isnan(alone["canopy_cover_error"])
    assert math.isnan(alone["shade_distribution_score"])
    e.add(collate([annotated[0]]), [annotated[1]])
    both = e.compute(Runtime.single(), heads=("semantic",))
    assert both["canopy_cover"] == both["canopy_cover_true"] == pytest.approx(math.pi * 100 / 128**2, rel=0.05)
