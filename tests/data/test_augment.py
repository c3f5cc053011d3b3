"""Coordinates follow the augmentation: a crown drawn at a known place is found where the map says, in the picture, as
box, mask, semantic id and diameter, for every operation; and what is called exact is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from drawn_data import DataSet, box, crown, disc
from hypothesis import given, settings
from hypothesis import strategies as st

from cabruca.config.schema import AugmentationConfig
from cabruca.data.augment import Geometry, change_light, draw_geometry, move_pixels
from cabruca.data.dataset import input_spec
from cabruca.data.pictures import PictureSet
from cabruca.data.sampling import SampleMaker
from cabruca.draws import draw_key
from cabruca.structures import Sample

TILE = 128
X, Y, R = 210.0, 170.0, 15.0
"""The crown: centre and radius on a picture of 400 px."""

OPERATIONS: dict[str, Geometry] = {
    "plain": Geometry((150, 120, TILE, TILE), (TILE, TILE)),
    "flip_x": Geometry((150, 120, TILE, TILE), (TILE, TILE), flip_x=True),
    "flip_y": Geometry((150, 120, TILE, TILE), (TILE, TILE), flip_y=True),
    "quarter_turn": Geometry((150, 120, TILE, TILE), (TILE, TILE), quarter_turn=True),
    "flips_and_turn": Geometry((150, 120, TILE, TILE), (TILE, TILE), flip_x=True, flip_y=True, quarter_turn=True),
    "enlarged": Geometry((165, 125, 80, 80), (TILE, TILE), zoom=1.6),
    "reduced": Geometry((100, 90, 160, 160), (TILE, TILE), zoom=0.8),
    "turned": Geometry((120, 90, 164, 164), (TILE, TILE), angle_deg=14.0),
    "turned_back": Geometry((120, 90, 164, 164), (TILE, TILE), angle_deg=-40.0),
    "everything": Geometry((130, 100, 146, 146), (TILE, TILE), 1.25, 12.0, flip_x=True, quarter_turn=True),
}


def _maker(data_set: DataSet, annotations: list[dict[str, Any]]) -> SampleMaker:
    picture = np.full((3, 400, 400), 40, dtype=np.uint8)
    picture[:, disc(400, 400, X, Y, R)] = 240
    data_set.picture(picture, gsd_m=0.1)
    config = data_set.config(annotations, scale=255.0)
    pictures = PictureSet(
        config.data.train_dir, config.data.train_annotations, input_spec(config), cache_mb=config.data.cache_mb
    )
    return SampleMaker(pictures, 0.3)


def _sample(maker: SampleMaker, geometry: Geometry) -> Sample:
    image, valid = maker.image(0, geometry)
    return maker.sample(0, geometry, image, valid, key=1)


def _centroid(weights: torch.Tensor) -> np.ndarray:
    rows, columns = torch.meshgrid(*(torch.arange(n) + 0.5 for n in weights.shape), indexing="ij")
    total = weights.sum()
    return np.array([float((columns * weights).sum() / total), float((rows * weights).sum() / total)])


@pytest.mark.parametrize("name", OPERATIONS)
def test_picture_box_mask_semantic_and_diameter_agree(data_set: DataSet, name: str) -> None:
    geometry = OPERATIONS[name]
    sample = _sample(_maker(data_set, [crown(disc(400, 400, X, Y, R))]), geometry)
    # where the crown must be, by trigonometry and not by the code's own matrix
    x, y, w, h = geometry.window
    turn = np.radians(geometry.angle_deg)
    dx, dy = (X - x - w / 2) * geometry.zoom, (Y - y - h / 2) * geometry.zoom
    u, v = TILE / 2 + dx * np.cos(turn) - dy * np.sin(turn), TILE / 2 + dx * np.sin(turn) + dy * np.cos(turn)
    u, v = (TILE - u if geometry.flip_x else u), (TILE - v if geometry.flip_y else v)
    u, v = (v, TILE - u) if geometry.quarter_turn else (u, v)
    place, radius = np.array([u, v]), R * geometry.zoom
    slack = 1e-4 if geometry.exact else 0.6
    assert sample.valid.all()
    np.testing.assert_allclose(_centroid(sample.image[0] - 40 / 255), place, atol=slack)
    crowns = sample.crowns
    assert len(crowns) == 1
    left, top, right, bottom = crowns.boxes_xyxy_px[0].tolist()
    np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], place, atol=max(slack, 0.6))
    np.testing.assert_allclose([right - left, bottom - top], 2 * radius, atol=2.1)
    mask = crowns.masks.dense(TILE, TILE)[0]
    np.testing.assert_allclose(_centroid(mask.float()), place, atol=slack)
    assert float(mask.sum()) == pytest.approx(np.pi * radius**2, rel=0.03)
    assert sample.semantic is not None
    agree = (sample.semantic == 1) == (mask > 0)
    assert agree.all() if geometry.exact else float((~agree).sum()) < 0.08 * float(mask.sum())
    assert sample.crown_diameter_px is not None
    assert float(crowns.diameter_px[0]) == pytest.approx(2 * radius, rel=0.02)
    shown = sample.crown_diameter_px > 0
    torch.testing.assert_close(shown, mask[2::4, 2::4] > 0)
    assert sample.crown_diameter_px[shown].unique().tolist() == [float(crowns.diameter_px[0])]
    assert sample.gsd_m is not None
    assert sample.gsd_m * float(crowns.diameter_px[0]) == pytest.approx(2 * R * 0.1, rel=0.02)


@pytest.mark.parametrize("name", ["plain", "flip_x", "flip_y", "quarter_turn", "flips_and_turn"])
def test_flips_and_quarter_turns_move_pixels_and_boxes_exactly(data_set: DataSet, name: str) -> None:
    geometry = OPERATIONS[name]
    noise = np.random.default_rng(0).integers(0, 255, (3, 400, 400)).astype(np.uint8)
    data_set.picture(noise)
    config = data_set.config([box(180, 140, 21.5, 33.25)], scale=255.0)
    maker = SampleMaker(PictureSet(data_set.folder, config.data.train_annotations, input_spec(config), cache_mb=8), 0.3)
    sample = _sample(maker, geometry)
    x, y = geometry.window[:2]
    tile = noise[:, y : y + TILE, x : x + TILE].astype(np.float32) / 255
    left, top, right, bottom = 180 - x, 140 - y, 201.5 - x, 173.25 - y
    if geometry.flip_x:
        tile, left, right = tile[:, :, ::-1], TILE - right, TILE - left
    if geometry.flip_y:
        tile, top, bottom = tile[:, ::-1], TILE - bottom, TILE - top
    if geometry.quarter_turn:
        tile = np.rot90(tile, 1, (1, 2))
        left, top, right, bottom = top, TILE - right, bottom, TILE - left
    np.testing.assert_array_equal(sample.image.numpy(), tile)
    np.testing.assert_allclose(sample.crowns.boxes_xyxy_px.numpy(), [[left, top, right, bottom]])
    assert float(sample.crowns.diameter_px[0]) == pytest.approx((21.5 + 33.25) / 2)


def test_a_turned_box_is_that_of_its_ellipse(data_set: DataSet) -> None:
    """Half extents of an ellipse with half axes a, b turned by t: sqrt((a cos t)^2 + (b sin t)^2), and across."""
    maker = _maker(data_set, [box(X - 30, Y - 10, 60, 20)])
    sample = _sample(maker, OPERATIONS["turned_back"])
    t = np.radians(40)
    half = [np.hypot(30 * np.cos(t), 10 * np.sin(t)), np.hypot(30 * np.sin(t), 10 * np.cos(t))]
    left, top, right, bottom = sample.crowns.boxes_xyxy_px[0].tolist()
    np.testing.assert_allclose([(right - left) / 2, (bottom - top) / 2], half, rtol=1e-5)
    assert half[0] < 30 * np.cos(t) + 10 * np.sin(t)  # the turned rectangle's box would be larger


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**40), st.booleans())
def test_tiles_show_real_pixels_to_their_corners(key: int, crop: bool) -> None:
    """Every drawn window covers its whole tile, whatever angle and zoom."""
    config = AugmentationConfig(
        random_rotate=0.8, rotate_degrees=45.0, random_scale=0.8, scale_range=(0.5, 2.0), random_crop=crop
    )
    valid_map = np.ones((4, 4), dtype=np.float32)
    geometry = draw_geometry(draw_key(key), config, (3000, 3000), 96, valid_map)
    assert draw_geometry(draw_key(key), config, (3000, 3000), 96, valid_map) == geometry
    x, y, w, h = geometry.window
    marked = torch.ones(1, h, w, dtype=torch.uint8)
    assert bool((move_pixels(marked, geometry, nearest=True) == 1).all())
    bright = move_pixels(marked.float(), geometry, nearest=False)
    assert float(bright.min()) > 0.999
    corners = np.array([[0.0, 0], [96, 0], [0, 96], [96, 96]])
    m = geometry.matrix()
    back = (corners - m[:, 2]) @ np.linalg.inv(m[:, :2]).T
    assert (back >= np.array([x, y]) - 1e-6).all()
    assert (back <= np.array([x + w, y + h]) + 1e-6).all()


def test_a_turned_window_keeps_the_middle_of_the_place_that_was_drawn() -> None:
    ones = np.ones((2, 2), dtype=np.float32)
    straight = AugmentationConfig(random_rotate=0.0)
    turned = AugmentationConfig(random_rotate=1.0, rotate_degrees=30.0)
    for i in range(40):
        one, other = (draw_geometry(draw_key(i), c, (900, 900), 128, ones) for c in (straight, turned))
        middles = [(x + w / 2, y + h / 2) for x, y, w, h in (one.window, other.window)]
        assert middles[0] == middles[1]
        assert one.zoom == other.zoom


def test_probabilities_and_ranges_are_kept() -> None:
    config = AugmentationConfig(random_flip=0.5, random_rotate=0.3, random_scale=0.3)
    ones = np.ones((2, 2), dtype=np.float32)
    found = [draw_geometry(draw_key(i), config, (900, 900), 128, ones) for i in range(1500)]
    for share, got in (
        (0.5, [g.flip_x for g in found]),
        (0.5, [g.flip_y for g in found]),
        (0.5, [g.quarter_turn for g in found]),
        (0.3, [g.angle_deg != 0 for g in found]),
        (0.3, [g.zoom != 1 for g in found]),
    ):
        assert np.mean(got) == pytest.approx(share, abs=0.05)
    assert max(abs(g.angle_deg) for g in found) <= 15
    assert all(0.79 <= g.zoom <= 1.27 for g in found)
    off = AugmentationConfig(random_flip=0.0, random_rotate=0.0, random_scale=0.0)
    assert all(draw_geometry(draw_key(i), off, (900, 900), 128, ones).exact for i in range(50))


def test_light_changes_around_the_mean_of_known_pixels_for_any_bands() -> None:
    image = torch.linspace(0.2, 0.8, 5 * 16).reshape(5, 4, 4)
    valid = torch.ones(4, 4, dtype=torch.bool)
    always = AugmentationConfig(brightness_contrast=1.0, brightness_contrast_limit=0.2)
    changed = [change_light(image, valid, draw_key(i), always, bounded=False) for i in range(40)]
    for new in changed:  # new = gain * image + offset, gain = brightness * contrast within 0.8^2 and 1.2^2
        gain = float((new[4, 3, 3] - new[0, 0, 0]) / (image[4, 3, 3] - image[0, 0, 0]))
        assert 0.64 <= gain <= 1.44
        torch.testing.assert_close(new, gain * (image - image.mean()) + new.mean(), rtol=1e-4, atol=1e-5)
        assert 0.8 <= float(new.mean() / image.mean()) <= 1.2
    assert len({round(float(c.mean()), 5) for c in changed}) > 30
    never = AugmentationConfig(brightness_contrast=0.0)
    assert change_light(image, valid, 3, never, bounded=True) is image
