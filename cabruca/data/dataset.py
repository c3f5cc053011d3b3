"""Samples: random windows for training, whole pictures or a fixed grid for evaluation."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from cabruca.config.schema import Config
from cabruca.config.stages import final_tile_size
from cabruca.data import raster
from cabruca.data.augment import Geometry, change_light, draw_geometry, move_pixels, plain_geometry
from cabruca.data.measure import mean_and_std, with_scale
from cabruca.data.pictures import PictureInfo, PictureSet
from cabruca.data.placing import picture_grounds
from cabruca.data.targets import density_map, diameter_map, move_crowns, move_regions, paint_semantic
from cabruca.data.tiling import GridWindow, evaluation_grid, picture_of, windows_per_picture
from cabruca.draws import draw_key, uniform
from cabruca.structures import IGNORE, InputSpec, Sample

PAD_MULTIPLE = 32
"""Evaluation windows are padded to it, at the right and at the bottom: the coarsest stride of the network."""


def input_spec(config: Config) -> InputSpec:
    """How pictures become the network's input: classes, bands, scale, and mean and std per band.

    Scale: `data.scale`, else 255 for uint8, 65535 for uint16, 1 for other types. Mean and std: of the configuration,
    else measured on the known pixels of up to 32 training windows whose places depend on the seed alone.

    Where the scale was derived, the pixel type goes into `dtype`, and pictures of another scale are refused later.

    Raises:
        DataError: the training set cannot be read, its pictures are of several types and no scale is given, or it
            shows nothing but NoData.
    """
    data, model = config.data, config.model
    blank = InputSpec(
        bands=data.bands,
        scale=data.scale or 1.0,
        mean=data.mean or (0.0,) * len(data.bands),
        std=data.std or (1.0,) * len(data.bands),
        tile_size=final_tile_size(config),
        gsd_m=data.target_gsd_m,
        category_map=dict(data.category_map),
        instance_classes=model.instance_names,
        semantic_classes=model.semantic_names,
    )
    if data.scale and data.mean and data.std:
        return blank
    windows = TrainWindows(config, blank)
    spec = blank if data.scale else with_scale(blank, windows.pictures)
    if data.mean and data.std:
        return spec
    mean, std = mean_and_std(windows, spec.scale)
    return replace(spec, mean=data.mean or mean, std=data.std or std)


class _Served:
    """Windows keep the loader processes that serve them (`loaders.py`); a copy in another process starts without."""

    def __init__(self) -> None:
        self.loaders: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "loaders": {}}


class _SampleMaker:
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
        image = torch.from_numpy(pixels.astype(np.float32)) / self.pictures.spec.scale
        if valid.all():
            tile_hw = geometry.tile_hw[::-1] if geometry.quarter_turn else geometry.tile_hw
            return move_pixels(image, geometry, nearest=False), torch.ones(tile_hw, dtype=torch.bool)
        known = torch.from_numpy(valid.copy())
        image = move_pixels(torch.where(known, image, self._fill), geometry, nearest=False)
        moved = move_pixels(known[None].to(torch.uint8), geometry, nearest=True)[0] > 0
        return self.filled(image, moved), moved

    def filled(self, image: Tensor, valid: Tensor) -> Tensor:
        return torch.where(valid, image, self._fill)

    def semantic(self, i: int, geometry: Geometry, valid: Tensor) -> Tensor | None:
        ids = self.pictures.semantic_raster(i, geometry.window)
        if ids is None:
            if not self.pictures.paints(i):
                return None
            ids = paint_semantic(self.pictures.table(i), geometry.window)
        moved = move_pixels(torch.from_numpy(ids)[None], geometry, nearest=True)[0]
        h, w = moved.shape
        moved = F.pad(moved, (0, valid.shape[1] - w, 0, valid.shape[0] - h), value=IGNORE)
        return torch.where(valid, moved, torch.tensor(IGNORE, dtype=torch.uint8))

    def sample(
        self, i: int, geometry: Geometry, image: Tensor, valid: Tensor, *, key: int, grid: GridWindow | None = None
    ) -> Sample:
        """The sample of an image that is made already, with its truth; `grid` None: it is counted whole."""
        table = self.pictures.table(i)
        crowns = move_crowns(table, geometry)
        semantic = self.semantic(i, geometry, valid)
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
                self._min_visible, valid, move_regions(table, geometry), None if grid is None else core
            ),
            semantic=None if semantic is None else semantic.contiguous(),
            crown_diameter_px=diameter_map(crowns, valid),
            density=density,
            key=key,
            picture=f"{info.image.id}:{y}:{x}",
            gsd_m=None if gsd_m is None else gsd_m / geometry.zoom,
            size_hw_px=size_hw,
            core_xyxy_px=core,
            inner_edges=inner,
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


class TrainWindows(_Served):
    """Training windows: `tile_size` square, augmented, sample `index` of `epoch` a function of (seed, epoch, index).

    `tile_size` is the specification's; `at` gives others.

    Raises:
        DataError: see `PictureSet`; or a picture, mask or annotation that turns out broken when it is read.
    """

    def __init__(self, config: Config, spec: InputSpec) -> None:
        super().__init__()
        data = config.data
        self.pictures = PictureSet(data.train_dir, data.train_annotations, spec, cache_mb=data.cache_mb)
        self.seed = config.training.seed
        self._augmentation = data.augmentation
        self._maker = _SampleMaker(self.pictures, data.min_visible_share)
        self._valid_maps = [raster.valid_share_map(p.path) for p in self.pictures.pictures]
        self._labelled_px = [
            p.grid_hw[0] * p.grid_hw[1] * float(m.mean())
            for p, m in zip(self.pictures.pictures, self._valid_maps, strict=True)
        ]
        self._per_epoch = data.windows_per_epoch
        self._cut(spec.tile_size)

    def _cut(self, tile_size: int) -> None:
        self.tile_size = tile_size
        self._shares = windows_per_picture(self._labelled_px, tile_size)
        self._count = sum(self._shares) if self._per_epoch == "auto" else self._per_epoch

    def at(self, tile_size: int) -> TrainWindows:
        """Windows of another size over the same opened pictures (a stage of progressive training)."""
        other = copy(self)
        other._cut(tile_size)
        return other

    def num_samples(self, epoch: int = 0) -> int:
        """Windows in an epoch: as configured, or the pictures' ceil(labelled px / tile_size^2) summed."""
        return self._count

    def get(self, epoch: int, index: int) -> Sample:
        """Sample `index` (0-based, below `num_samples`) of `epoch`."""
        key = draw_key(self.seed, epoch, index)
        i = picture_of(index, self._count, self._shares, float(uniform(key, 1)))
        hw, tile = self.pictures.pictures[i].grid_hw, self.tile_size
        if not self._augmentation.enabled:
            geometry = plain_geometry(key, hw, tile, self._valid_maps[i])
            image, valid = self._maker.image(i, geometry)
            return self._maker.sample(i, geometry, image, valid, key=key)
        geometry = draw_geometry(key, self._augmentation, hw, tile, self._valid_maps[i])
        image, valid = self._maker.image(i, geometry)
        image = change_light(image, valid, key, self._augmentation, bounded=self.pictures.spec.scale != 1.0)
        return self._maker.sample(i, geometry, self._maker.filled(image, valid), valid, key=key)

    def plain_window(self, key: int, index: int, total: int) -> tuple[raster.Array, npt.NDArray[np.bool_]]:
        """Raw pixels and validity of a window that is not augmented, for measuring."""
        i = picture_of(index, total, self._shares, float(uniform(key, 1)))
        info = self.pictures.pictures[i]
        return self.pictures.pixels(i, plain_geometry(key, info.grid_hw, self.tile_size, self._valid_maps[i]).window)


class EvaluationWindows(_Served):
    """Whole pictures up to `max_side_px`, a fixed grid over larger ones; padded to a multiple of 32.

    `crowns` of a sample are all of its window, context included, clipped at the window; crowns of which less than
    `min_visible_share` is left (in the context of a grid window only) are left out, except those whose centre lies in
    the core: this window is the one that counts them.

    Raises:
        DataError: see `PictureSet`; or an overlap that is not smaller than `max_side_px`.
    """

    def __init__(
        self,
        images_dir: str | Path,
        annotations: str | Path,
        spec: InputSpec,
        *,
        max_side_px: int,
        overlap: int,
        min_visible_share: float,
        cache_mb: int,
    ) -> None:
        super().__init__()
        self._set = PictureSet(images_dir, annotations, spec, cache_mb=cache_mb)
        self._maker = _SampleMaker(self._set, min_visible_share)
        self.grounds, self.planes = picture_grounds(self._set)
        self._windows = [
            (i, window)
            for i, picture in enumerate(self._set.pictures)
            for window in evaluation_grid(picture.grid_hw, max_side_px, overlap)
        ]

    @property
    def pictures(self) -> list[PictureInfo]:
        """The pictures, in the annotation file's order."""
        return self._set.pictures

    def has_masks(self, class_label: int) -> bool:
        """Whether the truth holds a mask of instance class `class_label` (1 = first)."""
        return self._set.has_masks(class_label)

    def __len__(self) -> int:
        return len(self._windows)

    def padded_hw(self, i: int) -> tuple[int, int]:
        """Rows and columns of sample `i`, padding included, without reading it."""
        _, _, w, h = self._windows[i][1].window
        return _padded(h), _padded(w)

    def get(self, i: int) -> Sample:
        """Window `i`, 0-based."""
        picture, grid = self._windows[i]
        _, _, w, h = grid.window
        geometry = Geometry(grid.window, (h, w))
        image, valid = self._maker.image(picture, geometry)
        height, width = self.padded_hw(i)
        margin = (0, width - w, 0, height - h)
        valid = F.pad(valid, margin, value=False)
        image = self._maker.filled(F.pad(image, margin), valid)
        sample = self._maker.sample(picture, geometry, image, valid, key=draw_key(i), grid=grid)
        return replace(sample, ground=self.grounds[picture].at(*grid.window[:2]))


def _padded(length: int) -> int:
    return -(-length // PAD_MULTIPLE) * PAD_MULTIPLE
