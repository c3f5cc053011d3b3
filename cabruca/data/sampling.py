"""Samples from places: a geometry on a picture becomes pixels and truth of one window."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cabruca.data.augment import Geometry, move_pixels
from cabruca.data.pictures import PictureInfo, PictureSet
from cabruca.data.targets import density_map, diameter_map, move_crowns, move_regions, paint_semantic
from cabruca.data.tiling import GridWindow
from cabruca.structures import IGNORE, Sample


class SampleMaker:
    """Turns a geometry on a picture into a Sample."""

    def __init__(self, pictures: PictureSet, min_visible_share: float) -> None:
        self.pictures = pictures
        self._min_visible = min_visible_share
        self._fill = torch.tensor(pictures.spec.mean, dtype=torch.float32)[:, None, None]
        names = pictures.spec.semantic_classes
        self._tree_ids = [names.index(n) for n in pictures.spec.instance_classes if n in names]

    def image(self, i: int, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """`[C, h, w]` scaled, NoData filled with the mean (0 once normalised), and `[h, w]` valid."""
        pixels, valid = self.pictures.pixels(i, geometry.window)
        # in one pass, the same bits as a conversion and a division: half the time of a window that is quick to decode
        image = torch.from_numpy(np.divide(pixels, np.float32(self.pictures.spec.scale), dtype=np.float32))
        if valid.all():
            tile_hw = geometry.tile_hw[::-1] if geometry.quarter_turn else geometry.tile_hw
            return move_pixels(image, geometry, nearest=False), torch.ones(tile_hw, dtype=torch.bool)
        known = torch.from_numpy(valid.copy())
        image = move_pixels(torch.where(known, image, self._fill), geometry, nearest=False)
        moved = move_pixels(known[None].to(torch.uint8), geometry, nearest=True)[0] > 0
        return self.filled(image, moved), moved

    def filled(self, image: Tensor, valid: Tensor) -> Tensor:
        return torch.where(valid, image, self._fill)

    def labelled(self, i: int, geometry: Geometry, valid: Tensor) -> Tensor | None:
        """Valid pixels that somebody looked at; None where that is all of them."""
        found = self.pictures.labelled(i, geometry.window)
        if found is None:
            return None
        moved = move_pixels(torch.from_numpy(found)[None].to(torch.uint8), geometry, nearest=True)[0] > 0
        h, w = moved.shape
        return valid & F.pad(moved, (0, valid.shape[1] - w, 0, valid.shape[0] - h), value=False)

    def semantic(self, i: int, geometry: Geometry, known: Tensor) -> Tensor | None:
        ids = self.pictures.semantic_raster(i, geometry.window)
        if ids is None:
            if not self.pictures.paints(i):
                return None
            ids = paint_semantic(self.pictures.table(i), geometry.window)
        moved = move_pixels(torch.from_numpy(ids)[None], geometry, nearest=True)[0]
        h, w = moved.shape
        moved = F.pad(moved, (0, known.shape[1] - w, 0, known.shape[0] - h), value=IGNORE)
        return torch.where(known, moved, torch.tensor(IGNORE, dtype=torch.uint8))

    def sample(
        self, i: int, geometry: Geometry, image: Tensor, valid: Tensor, *, key: int, grid: GridWindow | None = None
    ) -> Sample:
        """The sample of an image that is made already, with its truth; `grid` None: it is counted whole."""
        table = self.pictures.table(i)
        crowns = move_crowns(table, geometry)
        labelled = self.labelled(i, geometry, valid)
        known = valid if labelled is None else labelled
        semantic = self.semantic(i, geometry, known)
        density = density_map(semantic, self._tree_ids) if semantic is not None and self._tree_ids else None
        gsd_m, info = self.pictures.gsd_m(i), self.pictures.pictures[i]
        size_hw = _size_before_padding(geometry, info)
        x, y = geometry.window[:2]
        core, inner = (0, 0, size_hw[1], size_hw[0]), (False, False, False, False)
        if grid is not None:
            x0, y0, x1, y1 = grid.core_xyxy
            core = (x0 - x, y0 - y, x1 - x, y1 - y)
            right, bottom = x + size_hw[1] < info.grid_hw[1], y + size_hw[0] < info.grid_hw[0]
            inner = (x > 0, y > 0, right, bottom)
        return Sample(
            image=image.contiguous(),
            valid=valid,
            crowns=crowns.truth(
                self._min_visible, known, move_regions(table, geometry), None if grid is None else core
            ),
            semantic=None if semantic is None else semantic.contiguous(),
            crown_diameter_px=diameter_map(crowns, known),
            density=density,
            key=key,
            picture=f"{info.image.id}:{y}:{x}",
            gsd_m=None if gsd_m is None else gsd_m / geometry.zoom,
            size_hw_px=size_hw,
            core_xyxy_px=core,
            inner_edges=inner,
            labelled=labelled,
        )


def _size_before_padding(geometry: Geometry, info: PictureInfo) -> tuple[int, int]:
    """Padding lies at the right and at the bottom while rows and columns stay; a turned tile counts whole and leaves
    its padding to `valid`."""
    th, tw = geometry.tile_hw
    if not geometry.upright:
        return th, tw
    x, y, _, _ = geometry.window
    height, width = info.grid_hw
    return min(th, math.ceil((height - y) * geometry.zoom)), min(tw, math.ceil((width - x) * geometry.zoom))
