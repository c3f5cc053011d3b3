"""Samples: random windows for training, whole pictures or a fixed grid for evaluation."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F

from cabruca.config.schema import Config
from cabruca.config.stages import final_tile_size
from cabruca.data import raster
from cabruca.data.augment import Geometry, change_light, draw_geometry, plain_geometry
from cabruca.data.measure import mean_and_std, with_scale
from cabruca.data.pictures import PictureInfo, PictureSet
from cabruca.data.placing import picture_grounds
from cabruca.data.sampling import SampleMaker
from cabruca.data.tiling import GridWindow, evaluation_grid, picture_of, windows_per_picture
from cabruca.draws import draw_key, uniform
from cabruca.structures import InputSpec, Sample

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
        self._maker = SampleMaker(self.pictures, data.min_visible_share)
        self._valid_maps = [self.pictures.known_map(i) for i in range(len(self.pictures))]
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
        """Raw pixels of a window that is not augmented, and which of them are valid and labelled, for measuring."""
        i = picture_of(index, total, self._shares, float(uniform(key, 1)))
        info = self.pictures.pictures[i]
        window = plain_geometry(key, info.grid_hw, self.tile_size, self._valid_maps[i]).window
        pixels, valid = self.pictures.pixels(i, window)
        labelled = self.pictures.labelled(i, window)
        return pixels, valid if labelled is None else valid & labelled


class EvaluationWindows(_Served):
    """Whole pictures up to `max_side_px`, a fixed grid over larger ones; padded to a multiple of 32. Windows whose core
    nobody labelled are left out.

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
        self._maker = SampleMaker(self._set, min_visible_share)
        self.grounds, self.planes = picture_grounds(self._set)
        self._windows = [
            (i, window)
            for i, picture in enumerate(self._set.pictures)
            for window in evaluation_grid(picture.grid_hw, max_side_px, overlap)
            if self._is_labelled(i, window)
        ]

    def _is_labelled(self, i: int, grid: GridWindow) -> bool:
        """Whether there is anything to count in the window's core."""
        x0, y0, x1, y1 = grid.core_xyxy
        found = self._set.labelled(i, (x0, y0, x1 - x0, y1 - y0))
        return found is None or bool(found.any())

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
