"""Places of windows: shares of an epoch, bounds, NoData, and grids that count every pixel once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cabruca.data.tiling import evaluation_grid, picture_of, place_window, windows_per_picture
from cabruca.draws import draw_key
from cabruca.errors import DataError


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([64, 96, 128, 256]), st.integers(0, 63))
def test_grid_cores_cover_every_pixel_once(height: int, width: int, side: int, overlap: int) -> None:
    counted = np.zeros((height, width), dtype=int)
    windows = evaluation_grid((height, width), side, overlap)
    for w in windows:
        x, y, ww, wh = w.window
        x0, y0, x1, y1 = w.core_xyxy
        counted[y0:y1, x0:x1] += 1
        assert (ww, wh) == (min(side, width), min(side, height))
        assert 0 <= x <= x0 < x1 <= x + ww <= width
        assert 0 <= y <= y0 < y1 <= y + wh <= height
        # context on each side that is not the picture's edge
        assert x0 == 0 or x0 - x >= overlap // 2
        assert x1 == width or x + ww - x1 >= overlap // 2
        assert y0 == 0 or y0 - y >= overlap // 2
        assert y1 == height or y + wh - y1 >= overlap // 2
    assert (counted == 1).all()
    assert len(windows) == 1 or max(height, width) > side


def test_grid_by_hand_and_refused_overlap() -> None:
    # 150 px in windows of 64 with 16 shared: ceil((150 - 16) / (64 - 16)) = 3, starts 0, 43, 86
    found = evaluation_grid((64, 150), 64, 16)
    assert [w.window for w in found] == [(0, 0, 64, 64), (43, 0, 64, 64), (86, 0, 64, 64)]
    assert [w.core_xyxy for w in found] == [(0, 0, 53, 64), (53, 0, 96, 64), (96, 0, 150, 64)]
    with pytest.raises(DataError, match="overlap 64"):
        evaluation_grid((100, 100), 64, 64)


def test_an_epoch_takes_each_picture_by_its_share() -> None:
    shares = windows_per_picture([512 * 512, 100 * 100, 300 * 256], 256)
    assert shares == [4, 1, 2]
    u = np.random.default_rng(0).random(7)
    assert [picture_of(i, 7, shares, float(u[i])) for i in range(7)] == [0, 0, 0, 0, 1, 2, 2]
    many = np.bincount([picture_of(i, 700, shares, float(u[i % 7])) for i in range(700)])
    np.testing.assert_array_equal(many, [400, 100, 200])
    few = [picture_of(0, 1, shares, v) for v in (0.0, 0.56, 0.6, 0.99, 1.0)]
    assert few == [0, 0, 1, 2, 2]
    assert [picture_of(i, 7, shares, 0.0) for i in (3, 4, 5)] == [0, 1, 2]  # a share ends before the next begins


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 400), st.integers(1, 400), st.integers(1, 300))
def test_places_lie_inside_and_depend_on_the_key_alone(key: int, h: int, w: int, side: int) -> None:
    x, y = place_window(key, (h, w), side)
    assert 0 <= x <= max(0, w - side)
    assert 0 <= y <= max(0, h - side)
    assert place_window(key, (h, w), side) == (x, y)


def test_every_place_is_equally_likely() -> None:
    places = np.array([place_window(draw_key(3, i), (70, 69), 64) for i in range(4200)])
    counts = np.zeros((7, 6))
    np.add.at(counts, (places[:, 1], places[:, 0]), 1)
    expected = 4200 / 42
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 75  # 41 degrees of freedom: exceeded once in a thousand


def test_places_of_mostly_nodata_are_drawn_again() -> None:
    valid = np.zeros((10, 10), dtype=np.float32)
    valid[:, 8:] = 1  # only the right fifth of 1000 px is known
    blind = [place_window(draw_key(i), (1000, 1000), 100) for i in range(200)]
    seeing = [place_window(draw_key(i), (1000, 1000), 100, valid) for i in range(200)]
    assert np.mean([x + 100 > 800 for x, _ in blind]) < 0.4
    assert np.mean([x + 100 > 800 for x, _ in seeing]) > 0.85
