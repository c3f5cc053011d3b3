"""Findings that windows do not share: the window with the better view decides, so the overlap is not counted double."""

from __future__ import annotations

import numpy as np
import pytest

from cabruca.predict.found import Found
from cabruca.predict.stitch import Stitcher
from cabruca.predict.windows import Grid, Window

HW = (420, 420)
SIDE = 96


def seen(window: Window, x: float, y: float, size: float = 5.0) -> Found:
    """A box of `size` px around a point, as this window sees it whole."""
    x0, y0, x1, y1 = window.box
    clearance = min(x - x0, y - y0, x1 - x, y1 - y)
    box = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)
    return Found(
        window=window.index,
        label=1,
        score=0.5,
        box=box,
        mask=None,
        canopy_share=float("nan"),
        cut=False,
        clearance=clearance,
    )


def stitched(grid: Grid, findings: dict[int, list[Found]]) -> list[Found]:
    stitcher, out = Stitcher(grid), list[Found]()
    for window in grid:
        stitcher.add(window.index, findings[window.index])
        if window.index + 1 == len(grid) or grid.window(window.index + 1).row != window.row:
            out += stitcher.settled(window.row)
    return out


@pytest.mark.parametrize("overlap", [8, 32, 48, 64])
def test_what_windows_imagine_is_counted_once_a_piece_of_ground(overlap: int) -> None:
    """Every window imagines 40 crowns of its own, another 40 each time it is asked about the same ground."""
    rng, grid = np.random.default_rng(0), Grid.over(HW, SIDE, overlap)
    findings = {}
    for window in grid:
        x0, y0, x1, y1 = window.box
        places = zip(rng.uniform(x0 + 4, x1 - 4, 40), rng.uniform(y0 + 4, y1 - 4, 40), strict=True)
        findings[window.index] = [seen(window, x, y) for x, y in places]
    per_window = HW[0] * HW[1] * 40 / (SIDE - 8) ** 2
    assert len(stitched(grid, findings)) == pytest.approx(per_window, rel=0.12)


def test_a_crown_of_the_window_with_the_better_view_stays_and_one_that_it_denies_goes() -> None:
    grid = Grid.over((96, 160), SIDE, 32)
    left, right = grid.window(0), grid.window(1)
    assert (left.box, right.box) == ((0, 0, 96, 96), (64, 0, 160, 96))
    kept = stitched(grid, {0: [seen(left, 75, 20), seen(left, 86, 60)], 1: [seen(right, 74, 80), seen(right, 85, 40)]})
    assert [(f.window, f.box[0] + 2.5) for f in kept] == [(0, 75), (1, 85)]


def test_a_window_that_was_left_out_denies_nothing() -> None:
    grid = Grid.over((96, 160), SIDE, 32)
    stitcher = Stitcher(grid)
    stitcher.add(0, [seen(grid.window(0), 86, 60)])
    assert len(list(stitcher.settled(0))) == 1


def test_one_that_cuts_the_crown_denies_nothing() -> None:
    """30 px wide around a place nearer to the middle of the right window, whose edge runs through it."""
    grid = Grid.over((96, 160), SIDE, 32)
    found = seen(grid.window(0), 79, 48, 31)
    assert len(stitched(grid, {0: [found], 1: []})) == 1
