"""A crown that one window calls cacao and the next one shade is one crown, of the class that is surer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maps import layer
from perfect import Disc, Perfect, plan_of, write_coordinates
from test_seams import HW, drawn, largest_px

from cabruca.predict.found import Found
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run
from cabruca.predict.stitch import Stitcher
from cabruca.predict.windows import Grid, Window
from cabruca.structures import Prediction

TILE = 96


def odd(grid: Grid, window: Window) -> bool:
    return (window.row + grid.columns.index(window.x)) % 2 == 1


class Flipping(Perfect):
    """Every other window names both classes wrong, and is less sure: 0.7 and not 0.9."""

    def __init__(self, discs: Sequence[Disc], grid: Grid) -> None:
        super().__init__(discs, grid.hw)
        self._wrong = {(w.x.start, w.y.start) for w in grid if odd(grid, w)}

    def _see(self, image: torch.Tensor, valid: torch.Tensor, hw: tuple[int, int]) -> Prediction:
        seen = super()._see(image, valid, hw)
        if (round(float(image[0, 0, 0])), round(float(image[1, 0, 0]))) not in self._wrong:
            return seen
        return dataclasses.replace(seen, labels=3 - seen.labels, scores=torch.full_like(seen.scores, 0.7))


def expected(discs: Sequence[Disc], grid: Grid) -> list[tuple[float, float, str, float]]:
    """Centre, class and score: wrong only where no window that is right sees all of the crown."""
    rows = []
    for d in discs:
        ys, xs = np.nonzero(d.mask(*grid.hw))
        right = any(not odd(grid, w) and whole(grid, w, xs, ys) for w in grid)
        label = d.label if right else 3 - d.label
        at = (round(float(xs.mean() + 0.5), 6), round(float(ys.mean() + 0.5), 6))
        rows.append((*at, ("cacao_tree", "shade_tree")[label - 1], 0.9 if right else 0.7))
    return sorted(rows)


def whole(grid: Grid, window: Window, xs: Any, ys: Any) -> bool:
    """Farther than 2 px from every edge where the raster goes on."""
    x0, y0, x1, y1 = window.box
    height, width = grid.hw
    return bool(
        (x0 == 0 or xs.min() - x0 >= 2)
        and (y0 == 0 or ys.min() - y0 >= 2)
        and (x1 == width or x1 - xs.max() - 1 >= 2)
        and (y1 == height or y1 - ys.max() - 1 >= 2)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batch", [1, 3])
def test_a_class_that_flips_between_windows_makes_no_second_crown(tmp_path: Path, seed: int, batch: int) -> None:
    discs = drawn(25, 40, seed=seed)
    overlap = largest_px(discs) + 4
    grid = Grid.over(HW, TILE, overlap)
    image, out = write_coordinates(tmp_path / "a.tif", HW), tmp_path / "a.gpkg"
    plan = plan_of([image], out, simplify_px=0, tile_size=TILE, overlap=overlap, batch_size=batch)
    run(plan, InProcess(Flipping(discs, grid)))
    v, _ = layer(out)
    got = zip(v["centroid_x"], v["centroid_y"], v["class"], v["score"], strict=True)
    assert sorted((round(x, 6), round(y, 6), c, round(s, 6)) for x, y, c, s in got) == expected(discs, grid)


def seen(window: int, label: int, score: float, x: float, *, cut: bool = False) -> Found:
    """A box of 20 px in a row of windows of 96 px that share 64."""
    return Found(window, label, score, (x, 40.0, x + 20, 60.0), None, float("nan"), cut, 5.0 + window)


def settled(*found: Found) -> list[tuple[int, float]]:
    """Label and score of what is in the map."""
    stitcher = Stitcher(Grid.over((96, 160), TILE, 64))
    for window in range(len(stitcher.grid)):
        stitcher.add(window, [f for f in found if f.window == window])
    return [(crown.label, crown.score) for crown in stitcher.settled(0)]


def test_the_surer_decides_though_the_other_is_farther_from_the_edge() -> None:
    assert settled(seen(0, 1, 0.9, 50), seen(1, 2, 0.6, 51)) == [(1, 0.9)]
    assert settled(seen(0, 1, 0.6, 50), seen(1, 2, 0.9, 51)) == [(2, 0.9)]


def test_two_crowns_of_one_window_stay_two() -> None:
    assert len(settled(seen(0, 1, 0.9, 50), seen(0, 2, 0.8, 52), seen(1, 2, 0.8, 52))) == 2


def test_neighbours_of_two_classes_stay_two() -> None:
    both = [seen(window, *crown) for window in (0, 1) for crown in ((1, 0.9, 40), (2, 0.8, 52))]
    assert len(settled(*both)) == 2  # an IoU of 0.25


def test_a_first_view_of_each_class_is_joined_by_a_later_one() -> None:
    """The first window cuts it, so that the second starts another crown; the third sees what both began."""
    assert settled(seen(0, 1, 0.8, 70, cut=True), seen(1, 2, 0.7, 70), seen(2, 1, 0.9, 70)) == [(1, 0.9)]
