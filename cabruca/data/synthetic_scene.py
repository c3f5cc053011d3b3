"""Draws a practice plot of cabruca seen from above: a height field of tree crowns over ground, lit by a low sun.

Everything follows from the height field: which crown is on top (so the visible part of a cacao under a shade tree is
the truth), the light on a leaf, and where a shadow falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Field = npt.NDArray[np.float32]
Rng = np.random.Generator

CACAO, SHADE = 1, 2
BACKGROUND, UNDERSTORY, SOIL, SHADOW = 0, 3, 4, 5

ROW_M = 3.4
"""Distance between cacao rows, and between plants in a row."""

SUN_AZIMUTH_DEG, SUN_ELEVATION_DEG = 50.0, 52.0
"""Azimuth clockwise from north."""

_CACAO_GREENS = ((58, 92, 40), (72, 104, 44), (50, 80, 42), (92, 104, 50))
_SHADE_GREENS = ((96, 128, 62), (62, 96, 66), (122, 138, 74), (84, 108, 50), (106, 118, 92), (134, 122, 66))


@dataclass(frozen=True)
class Tree:
    """One crown: label (1 cacao, 2 shade), centre px, and the whole crown's pixels, hidden ones included."""

    label: int
    x_px: float
    y_px: float
    area_px: int


@dataclass(frozen=True)
class Scene:
    """The picture uint8 `[H, W, 3]`, semantic ids uint8 `[H, W]`, and which tree shows at each pixel: int32 `[H, W]`,
    index into `trees` + 1, 0 = none."""

    rgb: npt.NDArray[np.uint8]
    semantic: npt.NDArray[np.uint8]
    instance: npt.NDArray[np.int32]
    trees: tuple[Tree, ...]


def draw_scene(size_px: int, gsd_m: float, seed: int) -> Scene:
    """A square plot of `size_px` at `gsd_m` metres a pixel."""
    rng = np.random.default_rng(seed)
    albedo, semantic = _ground(rng, size_px, gsd_m)
    height = np.where(semantic == UNDERSTORY, 0.5, 0.0).astype(np.float32)
    height *= 0.4 + 0.6 * _noise(rng, size_px, 0.5 / gsd_m, octaves=2)
    instance = np.zeros((size_px, size_px), dtype=np.int32)
    trees: list[Tree] = []
    leaves = _noise(rng, size_px, max(1.5, 0.22 / gsd_m), octaves=2) - 0.5
    for place in [*_cacao_places(rng, size_px, gsd_m), *_shade_places(rng, size_px, gsd_m)]:
        _plant(rng, place, gsd_m, (height, albedo, instance), trees)
    semantic[instance > 0] = np.array([0, *(t.label for t in trees)], dtype=np.uint8)[instance[instance > 0]]
    height += np.where(instance > 0, 0.45, 0.12).astype(np.float32) * leaves
    _leaf_clutter(rng, albedo, instance, trees, gsd_m)
    shadow = _cast_shadow(height, gsd_m)
    low = np.isin(semantic, (BACKGROUND, UNDERSTORY, SOIL))
    semantic[low & (shadow > 0.5)] = SHADOW
    return Scene(_light(rng, albedo, height, shadow, gsd_m), semantic, instance, tuple(trees))


def _leaf_clutter(rng: Rng, albedo: Field, instance: npt.NDArray[np.int32], trees: list[Tree], gsd_m: float) -> None:
    """Bright leaf clusters and the dark gaps between them; coarser on shade trees than on cacao."""
    label = np.array([0, *(t.label for t in trees)])[instance]
    for kind, clump_m in ((CACAO, 0.3), (SHADE, 0.75)):
        clumps = _noise(rng, instance.shape[0], clump_m / gsd_m, octaves=3)
        specks = ndimage.gaussian_filter(rng.normal(0, 1, instance.shape), 0.6)
        gaps = np.clip((clumps - 0.42) * 5, -1, 0.6) + 0.35 * specks
        albedo[label == kind] *= (1 + 0.3 * gaps[label == kind])[:, None]


def _noise(rng: Rng, size: int, scale_px: float, octaves: int = 3) -> Field:
    """Fractal noise in 0..1: smooth random grids, each finer by two and weaker by two."""
    total = np.zeros((size, size), dtype=np.float32)
    for k in range(octaves):
        cells = max(2, math.ceil(size * 2**k / scale_px)) + 3
        grid = rng.random((cells, cells), dtype=np.float32)
        if cells > size:
            total += grid[:size, :size] * 0.5**k
            continue
        fine = ndimage.zoom(grid, (size + 2) / (cells - 3), order=3, mode="nearest", grid_mode=False)
        total += fine[:size, :size] * 0.5**k
    total -= total.min()
    return np.asarray(total / max(float(total.max()), 1e-6), dtype=np.float32)


def _ground(rng: Rng, size: int, gsd_m: float) -> tuple[Field, npt.NDArray[np.uint8]]:
    """Soil with leaf litter, patches of understory, and a footpath."""
    coarse, fine = _noise(rng, size, 9 / gsd_m), _noise(rng, size, 0.6 / gsd_m, octaves=4)
    litter = np.clip((0.6 * coarse + 0.6 * fine - 0.45) * 2.2, 0, 1)[..., None]
    albedo = (1 - litter) * np.array((168, 130, 96)) + litter * np.array((112, 88, 64))
    albedo *= 0.82 + 0.36 * fine[..., None]
    semantic = np.full((size, size), SOIL, dtype=np.uint8)
    herbs = _noise(rng, size, 6 / gsd_m, octaves=4)
    green = herbs > np.quantile(herbs, 0.62)
    blades = _noise(rng, size, 0.35 / gsd_m, octaves=3)[..., None]
    herb_colour = (1 - blades) * np.array((78, 92, 44)) + blades * np.array((150, 158, 84))
    albedo = np.where(green[..., None], herb_colour * (0.9 + 0.3 * coarse[..., None]), albedo)
    semantic[green] = UNDERSTORY
    path = _path(rng, size, gsd_m)
    albedo[path] = np.array((196, 172, 138)) * (0.85 + 0.25 * fine[path][:, None])
    semantic[path] = BACKGROUND
    return albedo.astype(np.float32), semantic


def _path(rng: Rng, size: int, gsd_m: float) -> npt.NDArray[np.bool_]:
    """A winding footpath across the plot, about 1.2 m wide."""
    x = np.arange(size) * gsd_m
    phase = rng.random(3) * 2 * np.pi
    line = size * gsd_m * (0.35 + 0.3 * rng.random()) + sum(
        a * np.sin(x / b + p) for a, b, p in zip((3.0, 1.2, 0.5), (17.0, 6.5, 2.3), phase, strict=True)
    )
    y = np.arange(size)[:, None] * gsd_m
    width = 0.55 + 0.2 * _noise(rng, size, 1.2 / gsd_m, octaves=2)
    return np.asarray(np.abs(y - line[None, :]) < width)


def _cacao_places(rng: Rng, size: int, gsd_m: float) -> list[tuple[int, float, float, float]]:
    """Rows with jitter and gaps; label, x, y, radius in pixels."""
    step = ROW_M / gsd_m
    count = math.ceil(size / step) + 1
    places = []
    for row in range(count):
        for column in range(count):
            dx, dy = rng.normal(0, 0.28 / gsd_m, 2)
            radius = np.clip(rng.normal(1.55, 0.28), 0.9, 2.2) / gsd_m
            if rng.random() < 0.14:
                continue
            places.append((CACAO, column * step + step / 3 * (row % 2) + dx, row * step + dy, float(radius)))
    return places


def _shade_places(rng: Rng, size: int, gsd_m: float) -> list[tuple[int, float, float, float]]:
    """About 34 trees a hectare, kept apart."""
    area_ha = (size * gsd_m) ** 2 / 1e4
    wanted = max(2, round(34 * area_ha))
    places: list[tuple[int, float, float, float]] = []
    for _ in range(40 * wanted):
        x, y = rng.random(2) * size
        radius = np.clip(rng.lognormal(math.log(4.0), 0.3), 2.4, 7.0) / gsd_m
        if all(math.hypot(x - a, y - b) > 0.85 * (radius + r) for _, a, b, r in places):
            places.append((SHADE, float(x), float(y), float(radius)))
        if len(places) == wanted:
            break
    return places


def _plant(
    rng: Rng,
    place: tuple[int, float, float, float],
    gsd_m: float,
    layers: tuple[Field, Field, npt.NDArray[np.int32]],
    trees: list[Tree],
) -> None:
    """Add one crown to height, albedo and instance where it rises over what is there."""
    height, albedo, instance = layers
    label, x, y, radius = place
    dome = _dome(rng, radius, lobes=int(rng.integers(4, 7) if label == CACAO else rng.integers(9, 16)))
    size, reach = height.shape[0], dome.shape[0] // 2
    x0, y0 = round(x) - reach, round(y) - reach
    a, b, c, d = max(0, y0), min(size, y0 + dome.shape[0]), max(0, x0), min(size, x0 + dome.shape[1])
    crown = dome > 0
    trees.append(Tree(label, x, y, int(crown.sum())))
    if b <= a or d <= c:
        return
    top = float(rng.uniform(3.2, 4.6) if label == CACAO else rng.uniform(9.0, 14.0))
    part = dome[a - y0 : b - y0, c - x0 : d - x0]
    rise = top - radius * gsd_m * (0.75 if label == CACAO else 0.5) * (1 - part)
    wins = (part > 0) & (rise > height[a:b, c:d])
    height[a:b, c:d][wins] = rise[wins]
    instance[a:b, c:d][wins] = len(trees)
    greens = _CACAO_GREENS if label == CACAO else _SHADE_GREENS
    colour = np.array(greens[rng.integers(len(greens))]) * rng.uniform(0.9, 1.12) + rng.normal(0, 3, 3)
    flush = np.array((40, 12, -4)) * float(rng.random() < 0.22) if label == CACAO else np.zeros(3)  # young red leaves
    tips = np.clip((part[wins] - 0.7) / 0.3, 0, 1)[:, None]
    albedo[a:b, c:d][wins] = colour * (0.82 + 0.3 * tips) + flush * tips


def _dome(rng: Rng, radius: float, lobes: int) -> Field:
    """A crown `[s, s]` of several rounded boughs, 0 outside, height 0..1 inside: like a cauliflower from above."""
    reach = math.ceil(radius * 1.3)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    bend = _noise(rng, 2 * reach + 1, max(3.0, radius / 2.5), octaves=3) - 0.5
    other = _noise(rng, 2 * reach + 1, max(3.0, radius / 2.5), octaves=3) - 0.5
    x, y = x + bend * radius * 0.35, y + other * radius * 0.35
    dome = np.zeros_like(x)
    turn = rng.random() * 2 * np.pi
    heights = rng.uniform(0.8, 1.0, lobes + 1)
    stretch = rng.uniform(0.85, 1.15)
    for k in range(lobes + 1):
        distance = 0.0 if k == 0 else rng.uniform(0.35, 0.62) * radius
        own = (0.55 if k == 0 else rng.uniform(0.3, 0.48)) * radius
        angle = turn + 2 * np.pi * k / lobes + rng.normal(0, 0.25)
        dx, dy = distance * math.cos(angle) * stretch, distance * math.sin(angle) / stretch
        square = ((x - dx) ** 2 + (y - dy) ** 2) / own**2
        bough = np.sqrt(np.clip(1 - square, 0, None)) * (own / radius) / 0.55 * heights[k]
        # boughs further out hang lower
        dome = np.maximum(dome, np.where(square < 1, bough * (1 - 0.25 * distance / radius) + 0.02, 0))
    return np.asarray(np.clip(dome, 0, 1), dtype=np.float32)


def _cast_shadow(height: Field, gsd_m: float) -> Field:
    """0..1: a point is dark when, towards the sun, something rises above the ray to it."""
    azimuth, climb = math.radians(SUN_AZIMUTH_DEG), math.tan(math.radians(SUN_ELEVATION_DEG))
    dx, dy = math.sin(azimuth), -math.cos(azimuth)
    size = height.shape[0]
    shadow = np.zeros(height.shape, dtype=bool)
    for step in range(2, math.ceil(float(height.max()) / climb / gsd_m) + 1, 2):
        mx, my = round(dx * step), round(dy * step)
        a, b, c, d = max(0, -my), min(size, size - my), max(0, -mx), min(size, size - mx)
        ray = height[a:b, c:d] + step * gsd_m * climb
        shadow[a:b, c:d] |= height[a + my : b + my, c + mx : d + mx] > ray + 0.3
    return np.asarray(ndimage.gaussian_filter(shadow.astype(np.float32), 0.08 / gsd_m), dtype=np.float32)


def _light(rng: Rng, albedo: Field, height: Field, shadow: Field, gsd_m: float) -> npt.NDArray[np.uint8]:
    """Sun, sky and the camera: Lambert's law on the height field, a bluish ambient light, blur and noise."""
    rows, columns = np.gradient(ndimage.gaussian_filter(height, 0.7), gsd_m)
    slope_x, slope_y = np.tanh(columns * 0.5), np.tanh(rows * 0.5)
    norm = np.sqrt(slope_x**2 + slope_y**2 + 1)
    azimuth, elevation = math.radians(SUN_AZIMUTH_DEG), math.radians(SUN_ELEVATION_DEG)
    sun = (math.sin(azimuth) * math.cos(elevation), -math.cos(azimuth) * math.cos(elevation), math.sin(elevation))
    facing = np.clip((-slope_x * sun[0] - slope_y * sun[1] + sun[2]) / norm, 0, 1)
    sunk = ndimage.gaussian_filter(height, 0.9 / gsd_m) - height
    open_sky = np.clip(1 - 0.16 * sunk, 0.5, 1.12)
    direct = (0.92 * facing * (1 - 0.9 * shadow))[..., None] * np.array((1.04, 1.0, 0.92))
    ambient = (0.44 * open_sky)[..., None] * np.array((0.92, 1.0, 1.12))
    haze = 0.94 + 0.12 * _noise(rng, height.shape[0], 40 / gsd_m, octaves=2)[..., None]
    picture = albedo * (direct + ambient) * haze * 1.08
    picture = ndimage.gaussian_filter(picture, (0.55, 0.55, 0)) + rng.normal(0, 2.5, picture.shape)
    return np.asarray(np.clip(picture, 0, 255).round(), dtype=np.uint8)
