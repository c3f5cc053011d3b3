"""Augmentation: one affine map from a window of the picture to the tile, and a change of light.

Pixels go through torchvision's functional transforms (v2), coordinates and crown bitmaps through the same map as a
matrix. A rotated or zoomed tile is cut from a larger window, so that it shows real pixels to its corners. Flips and
quarter turns are exact. Every draw comes from `draws.uniform`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from cabruca.config.schema import AugmentationConfig
from cabruca.data.tiling import place_window
from cabruca.draws import draw_key, uniform

_AUGMENT = 0x61756720
"""Sets the draws for augmentation apart from others made from the same key."""

SMALLEST_CROP = 0.5
"""`random_crop` cuts windows of this share of the side to the whole side, in half of the cases."""


@dataclass(frozen=True)
class Geometry:
    """How a tile is cut from its picture.

    Attributes:
        window: x, y, width, height read from the picture (px of its grid).
        tile_hw: rows and columns of the tile, before `quarter_turn`.
        zoom: tile px per picture px. angle_deg: clockwise on the picture. Then the flips, then a quarter turn
            counter-clockwise.
    """

    window: tuple[int, int, int, int]
    tile_hw: tuple[int, int]
    zoom: float = 1.0
    angle_deg: float = 0.0
    flip_x: bool = False
    flip_y: bool = False
    quarter_turn: bool = False

    @property
    def exact(self) -> bool:
        """Pixels are moved, never mixed."""
        return self.angle_deg == 0.0 and self.window[2:] == (self.tile_hw[1], self.tile_hw[0])

    @property
    def upright(self) -> bool:
        """Rows and columns stay where they are."""
        return self.angle_deg == 0.0 and not (self.flip_x or self.flip_y or self.quarter_turn)

    def matrix(self) -> npt.NDArray[np.float64]:
        """`[2, 3]`: picture coordinates (x, y, 1) to tile coordinates, pixel edges at whole numbers."""
        x, y, w, h = self.window
        th, tw = self.tile_hw
        c, s = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        zx, zy = (self.zoom, self.zoom) if self.angle_deg else (tw / w, th / h)
        m = _shift(tw / 2, th / 2) @ np.array([[zx * c, -zy * s, 0], [zx * s, zy * c, 0], [0, 0, 1.0]])
        m = m @ _shift(-x - w / 2, -y - h / 2)
        if self.flip_x:
            m = np.array([[-1.0, 0, tw], [0, 1, 0], [0, 0, 1]]) @ m
        if self.flip_y:
            m = np.array([[1.0, 0, 0], [0, -1, th], [0, 0, 1]]) @ m
        if self.quarter_turn:
            m = np.array([[0.0, 1, 0], [-1, 0, tw], [0, 0, 1]]) @ m
        return np.asarray(m[:2])


def _shift(dx: float, dy: float) -> npt.NDArray[np.float64]:
    return np.array([[1.0, 0, dx], [0, 1, dy], [0, 0, 1]])


def plain_geometry(key: int, picture_hw: tuple[int, int], tile: int, valid_map: npt.NDArray[np.float32]) -> Geometry:
    """A window at a random place, not augmented."""
    x, y = place_window(key, picture_hw, tile, valid_map)
    return Geometry((x, y, tile, tile), (tile, tile))


def draw_geometry(
    key: int, config: AugmentationConfig, picture_hw: tuple[int, int], tile: int, valid_map: npt.NDArray[np.float32]
) -> Geometry:
    """Where and how the tile of sample `key` is cut."""
    u = uniform(draw_key(key, _AUGMENT), 10).tolist()
    angle = (2 * u[1] - 1) * config.rotate_degrees if u[0] < config.random_rotate else 0.0
    zoom = 1.0
    if u[2] < config.random_scale:
        low, high = (math.log(v) for v in config.scale_range)
        zoom = math.exp(low + u[3] * (high - low))
    if config.random_crop and u[4] < 0.5:
        zoom /= SMALLEST_CROP + (1 - SMALLEST_CROP) * u[5]
    # of the same parity as the tile, so that the rotated window can be cut around its very middle
    side = max(2, round((tile / zoom - tile % 2) / 2) * 2 + tile % 2)
    x, y = place_window(key, picture_hw, side, valid_map)
    flips = {"flip_x": u[6] < config.random_flip, "flip_y": u[7] < config.random_flip}
    turn = u[8] < config.random_flip
    if angle == 0.0:
        return Geometry((x, y, side, side), (tile, tile), tile / side, 0.0, **flips, quarter_turn=turn)
    reach = abs(math.cos(math.radians(angle))) + abs(math.sin(math.radians(angle)))
    grown = max(tile, side + 2 * math.ceil((side * (reach - 1) + 4) / 2))
    x, y = x - (grown - side) // 2, y - (grown - side) // 2
    return Geometry((x, y, grown, grown), (tile, tile), tile / side, angle, **flips, quarter_turn=turn)


def move_pixels(pixels: Tensor, geometry: Geometry, *, nearest: bool) -> Tensor:
    """Pixels `[C, h, w]` of the geometry's window to the tile `[C, th, tw]`.

    Args:
        nearest: nearest neighbour (ids, validity), else bilinear (imagery, float).
    """
    how = InterpolationMode.NEAREST_EXACT if nearest else InterpolationMode.BILINEAR
    if geometry.angle_deg:
        how = InterpolationMode.NEAREST if nearest else InterpolationMode.BILINEAR
        pixels = tv.affine(pixels, geometry.angle_deg, [0, 0], geometry.zoom, [0.0, 0.0], interpolation=how)
        pixels = tv.center_crop(pixels, list(geometry.tile_hw))
    elif not geometry.exact:
        pixels = tv.resize(pixels, list(geometry.tile_hw), interpolation=how, antialias=not nearest)
    if geometry.flip_x:
        pixels = tv.horizontal_flip(pixels)
    if geometry.flip_y:
        pixels = tv.vertical_flip(pixels)
    return torch.rot90(pixels, 1, (-2, -1)) if geometry.quarter_turn else pixels


def change_light(image: Tensor, valid: Tensor, key: int, config: AugmentationConfig, *, bounded: bool) -> Tensor:
    """Brightness, then contrast around the mean of the known pixels, each by up to `brightness_contrast_limit`.

    torchvision's own functions know one or three bands only and cut at 1; these work for any bands and for float
    reflectance (`bounded` False: nothing is cut).
    """
    u = uniform(draw_key(key, _AUGMENT, 1), 3).tolist()
    if u[0] >= config.brightness_contrast or not bool(valid.any()):
        return image
    limit = config.brightness_contrast_limit
    brightness, contrast = (1 + limit * (2 * v - 1) for v in u[1:])
    image = image * brightness
    mean = (image * valid).sum() / (valid.sum() * image.shape[0])
    image = (image - mean) * contrast + mean
    return image.clamp(0.0, 1.0) if bounded else image
