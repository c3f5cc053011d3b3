"""Spacing of trees: lattices with closed answers, random and clustered stands, plots pooled, one tree, none."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import shapely
from surveyed import lattice, scattered

from cabruca.metrics.spacing import (
    nearest_neighbours,
    neighbour_metrics,
    ripley_metrics,
    voronoi_areas,
    voronoi_metrics,
)


def donnelly(n: int, area: float, length: float) -> tuple[float, float]:
    """Expected mean distance to the nearest neighbour, and its standard error."""
    mean = 0.5 * math.sqrt(area / n) + (0.0514 + 0.041 / math.sqrt(n)) * length / n
    return mean, math.sqrt(0.0703 * area / n**2 + 0.037 * length * math.sqrt(area / n**5))


def test_a_lattice_by_hand() -> None:
    out = neighbour_metrics([lattice(10, 3.0)])
    mean, error = donnelly(100, 900.0, 120.0)
    assert out["nearest_neighbour_mean"] == pytest.approx(3.0)
    assert out["nearest_neighbour_cv"] == pytest.approx(0.0, abs=1e-12)
    assert out["clark_evans"] == pytest.approx(3.0 / mean)
    assert out["clark_evans_z"] == pytest.approx((3.0 - mean) / error)
    assert out["clark_evans_pattern"] == 1.0


def test_neighbours_by_hand() -> None:
    assert nearest_neighbours(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])).tolist() == [5.0, 1.0, 1.0]


def test_random_trees_are_random() -> None:
    indices = [neighbour_metrics([scattered(200, 100.0, seed)]) for seed in range(40)]
    assert np.mean([i["clark_evans"] for i in indices]) == pytest.approx(1.0, abs=0.02)
    z = np.array([i["clark_evans_z"] for i in indices])
    assert abs(z.mean()) < 0.5
    assert 0.7 < z.std() < 1.3
    assert all(i["clark_evans_pattern"] == 0.0 for i in indices)


def test_without_edge_correction_random_trees_look_even() -> None:
    """What Donnelly's terms are for: near the edge the nearest neighbour may stand outside, unseen."""
    plain = [nearest_neighbours(scattered(30, 100.0, s)[0]).mean() / (0.5 * math.sqrt(1e4 / 30)) for s in range(100)]
    corrected = [neighbour_metrics([scattered(30, 100.0, s)])["clark_evans"] for s in range(100)]
    assert np.mean(plain) > 1.08
    assert np.mean(corrected) == pytest.approx(1.0, abs=0.03)


def test_clumps_are_clustered() -> None:
    rng = np.random.default_rng(0)
    xy = (rng.uniform(10, 90, (10, 1, 2)) + rng.normal(0, 1, (10, 20, 2))).reshape(-1, 2)
    stand = (xy, shapely.box(0, 0, 100, 100))
    out = neighbour_metrics([stand])
    assert out["clark_evans_pattern"] == -1.0
    assert out["clark_evans_z"] < -10
    assert ripley_metrics([stand])["ripley_l_near"] > 2
    assert voronoi_metrics([stand])["voronoi_cv"] > 1


def test_ripley_on_a_lattice_by_hand() -> None:
    """Within 0.75 spacings nobody, within 1.5 eight neighbours, within 2.5 twenty; every centre sees all of them."""
    out = ripley_metrics([lattice(20)])
    assert out["ripley_l_near"] == 0.0
    assert out["ripley_l_middle"] == pytest.approx(math.sqrt(8 / (399 / 400 * math.pi * 1.5**2)))
    assert out["ripley_l_far"] == pytest.approx(math.sqrt(20 / (399 / 400 * math.pi * 2.5**2)))


def test_ripley_of_random_trees_is_one_also_beside_a_notch() -> None:
    whole = [scattered(400, 100.0, seed) for seed in range(20)]
    notch = shapely.box(0, 0, 100, 100).difference(shapely.box(40, 40, 100, 60))
    cut = [(xy[shapely.intersects_xy(notch, xy)], notch) for xy, _ in whole]
    for stands in (whole, cut):
        for value in ripley_metrics(stands).values():
            assert value == pytest.approx(1.0, abs=0.03)


def test_voronoi_cells_of_a_lattice_are_equal() -> None:
    assert voronoi_metrics([lattice(8)])["voronoi_cv"] == pytest.approx(0.0, abs=1e-9)
    assert voronoi_areas(*lattice(4)) == pytest.approx(1.0)


def test_voronoi_by_hand_and_clipped_at_the_plot() -> None:
    """Trees at x = 1 and x = 3 of a 10 x 1 strip: the line between them is x = 2."""
    areas = voronoi_areas(np.array([[1.0, 0.5], [3.0, 0.5]]), shapely.box(0, 0, 10, 1))
    assert sorted(areas.tolist()) == pytest.approx([2.0, 8.0])
    cv = voronoi_metrics([(np.array([[1.0, 0.5], [3.0, 0.5]]), shapely.box(0, 0, 10, 1))])
    assert cv["voronoi_cv"] == pytest.approx(0.6)  # 2 and 8 around 5


def test_voronoi_cells_fill_a_plot_with_a_notch_and_a_hole() -> None:
    ground = (
        shapely.box(0, 0, 100, 100).difference(shapely.box(40, 30, 100, 50)).difference(shapely.box(10, 10, 20, 20))
    )
    xy, _ = scattered(300, 100.0, 3)
    xy = xy[shapely.intersects_xy(ground, xy)] + 8e6  # as far out as eastings and northings are
    moved = shapely.transform(ground, lambda c: c + 8e6)
    assert voronoi_areas(xy, moved).sum() == pytest.approx(ground.area, rel=1e-9)


def test_voronoi_of_random_trees() -> None:
    cv = [voronoi_metrics([scattered(2000, 100.0, s)])["voronoi_cv"] for s in range(3)]
    assert np.mean(cv) == pytest.approx(0.53, abs=0.03)  # Poisson-Voronoi: 0.529


def test_trees_at_one_place_share_a_cell() -> None:
    xy, ground = lattice(3)
    assert voronoi_areas(np.concatenate([xy, xy[:2]]), ground) == pytest.approx(1.0)


def test_plots_are_pooled_by_their_trees() -> None:
    """Two lattices: distances are pooled by trees, expectations too, and their different density is no irregularity."""
    out = neighbour_metrics([lattice(10, 3.0), lattice(5, 6.0)])
    one, two = donnelly(100, 900.0, 120.0), donnelly(25, 900.0, 120.0)
    total, expected = 100 * 3.0 + 25 * 6.0, 100 * one[0] + 25 * two[0]
    assert out["nearest_neighbour_mean"] == pytest.approx(450 / 125)
    assert out["nearest_neighbour_cv"] == pytest.approx(0.0, abs=1e-12)
    assert out["clark_evans"] == pytest.approx(total / expected)
    assert out["clark_evans_z"] == pytest.approx((total - expected) / math.hypot(100 * one[1], 25 * two[1]))
    assert voronoi_metrics([lattice(10, 3.0), lattice(5, 6.0)])["voronoi_cv"] == pytest.approx(0.0, abs=1e-9)
    assert ripley_metrics([lattice(20), lattice(20, 6.0)]) == pytest.approx(ripley_metrics([lattice(20)]))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_trees_have_no_spacing(n: int) -> None:
    stand = (np.full((n, 2), 5.0), shapely.box(0, 0, 10, 10))
    for measure in (neighbour_metrics, ripley_metrics, voronoi_metrics):
        assert all(math.isnan(v) for v in measure([stand]).values())
        assert all(math.isnan(v) for v in measure([]).values())
        beside = measure([lattice(10), stand])
        assert beside == pytest.approx(measure([lattice(10)]), nan_ok=True)  # it adds nothing


@pytest.mark.parametrize(
    "ground", [shapely.Polygon(), shapely.GeometryCollection(), shapely.LineString([(0, 0), (9, 9)])]
)
def test_trees_on_a_plot_without_area_add_nothing(ground: shapely.Geometry) -> None:
    """All of their ground is NoData or ignored, and a region of one class alone leaves their neighbours counted."""
    stand = (lattice(3)[0], ground)
    for measure in (neighbour_metrics, ripley_metrics, voronoi_metrics):
        assert all(math.isnan(v) for v in measure([stand]).values())
        assert measure([lattice(10), stand]) == pytest.approx(measure([lattice(10)]), nan_ok=True)


def test_trees_entered_at_one_place_take_no_time() -> None:
    """A k-d tree alone would compare each of the 40,000 with all of them: minutes."""
    xy = np.concatenate([np.full((40_000, 2), 5.0), [[9.0, 5.0], [9.0, 8.0]]])
    start = time.perf_counter()
    assert nearest_neighbours(xy).tolist() == [0.0] * 40_000 + [3.0, 3.0]
    ripley_metrics([(xy, shapely.box(0, 0, 20, 20))])
    assert time.perf_counter() - start < 2


def test_trees_on_one_line_have_cells_in_no_time() -> None:
    """The diagram of points on a line is made by hand: GEOS takes time in n^2 for it."""
    x = np.sort(np.random.default_rng(0).uniform(0, 1000, 20_000))
    for xy, ground in (
        (np.stack([x, np.full_like(x, 5.0)], axis=1), shapely.box(0, 0, 1000, 10)),
        (np.stack([x, x], axis=1), shapely.box(0, 0, 1000, 1000)),
    ):
        start = time.perf_counter()
        areas = voronoi_areas(xy, ground)
        assert time.perf_counter() - start < 3
        assert areas.sum() == pytest.approx(ground.area)


def test_ripley_counts_trees_at_one_place_as_many() -> None:
    """The same stand, once with twins at one place, once with the twins a hair apart."""
    xy, ground = scattered(300, 100.0, 5)
    twins, apart = (np.concatenate([xy, xy[:40] + gap]) for gap in (0.0, 1e-7))
    assert ripley_metrics([(twins, ground)]) == pytest.approx(ripley_metrics([(apart, ground)]), rel=1e-6)
