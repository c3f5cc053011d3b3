"""What a labelled set holds, in numbers: classes, crown sizes, crowns a picture and a tile, resolution, land cover.

Everything is counted on the grid that windows are read from: with `data.target_gsd_m` its pixels are those the network
sees, without it the pictures' own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cabruca.config.schema import Config
from cabruca.data.coco import read_coco
from cabruca.data.dataset import EvaluationWindows
from cabruca.data.pictures import PictureSet
from cabruca.data.raster import Rect
from cabruca.data.stats_numbers import Array, CrownClass, SetStats, Spread, suggest_weights
from cabruca.structures import IGNORE, InputSpec


def config_stats(config: Config, *, land_cover: bool = True) -> list[SetStats]:
    """Training and validation set of a configuration, with its classes; the test set where its file is there.

    Args:
        land_cover: also count semantic pixels, for which every picture is read.

    Raises:
        DataError: a set cannot be read, or has a category without a class.
    """
    data, model = config.data, config.model
    spec = _spec(model.instance_names, model.semantic_names, config)
    sets = [("train", data.train_dir, data.train_annotations), ("val", data.val_dir, data.val_annotations)]
    if Path(data.test_annotations).is_file():
        sets.append(("test", data.test_dir, data.test_annotations))
    return [set_stats(name, folder, file, spec, config, land_cover=land_cover) for name, folder, file in sets]


def plain_stats(images: str | Path, annotations: str | Path, config: Config) -> SetStats:
    """One set as it stands: its categories are the classes; there is no land cover, because nothing names its ids.

    Raises:
        DataError: it cannot be read.
    """
    spec = _spec(tuple(dict.fromkeys(read_coco(annotations).categories.values())), (), config)
    return set_stats(Path(annotations).stem, images, annotations, spec, config, land_cover=False)


def _spec(instance: tuple[str, ...], semantic: tuple[str, ...], config: Config) -> InputSpec:
    data = config.data
    bands = len(data.bands)
    return InputSpec(
        bands=data.bands,
        scale=data.scale or 1.0,
        mean=(0.0,) * bands,
        std=(1.0,) * bands,
        tile_size=data.tile_size,
        gsd_m=data.target_gsd_m,
        category_map=dict(data.category_map),
        instance_classes=instance,
        semantic_classes=semantic,
    )


def set_stats(
    name: str, images: str | Path, annotations: str | Path, spec: InputSpec, config: Config, *, land_cover: bool
) -> SetStats:
    """Count one set.

    Raises:
        DataError: see `PictureSet`.
    """
    pictures = PictureSet(images, annotations, spec, cache_mb=config.data.cache_mb)
    crowns = [_CrownsOf(pictures, i, spec.tile_size) for i in range(len(pictures))]
    gsd = [crown.gsd_m for crown in crowns if crown.gsd_m is not None]
    tiles = np.concatenate([np.zeros(0, dtype=np.int64), *(crown.tiles for crown in crowns)])
    each = np.array([len(crown.labels) for crown in crowns])
    own = {label: _of_class(crowns, label) for label in range(1, len(spec.instance_classes) + 1)}
    each_cover = _land_cover(images, annotations, spec, config) if land_cover else None
    counts = None if each_cover is None else each_cover.sum(axis=0)
    known = None if counts is None else counts[:-1] / max(1, counts[:-1].sum())
    there = known is not None and known.sum() > 0
    return SetStats(
        name=name,
        pictures=len(pictures),
        megapixels=sum(math.prod(p.grid_hw) for p in pictures.pictures) / 1e6,
        gsd_m=Spread.of(gsd),
        gsd_unknown=len(pictures) - len(gsd),
        tile_size_px=spec.tile_size,
        classes={spec.instance_classes[label - 1]: found for label, (found, _) in own.items()},
        crowns_per_picture=Spread.of(each),
        crowns_per_tile=Spread.of(tiles),
        empty_tiles=float((tiles == 0).sum() / max(1, len(tiles))),
        crowds=sum(crown.crowds for crown in crowns),
        ignored=sum(crown.ignored for crown in crowns),
        land_cover=dict(zip(spec.semantic_classes, known.tolist(), strict=True))
        if there and known is not None
        else None,
        unknown_cover=float(counts[-1] / counts.sum()) if there and counts is not None else None,
        class_weights=suggest_weights(each_cover[:, :-1]) if there and each_cover is not None else None,
        values={spec.instance_classes[label - 1]: values for label, (_, values) in own.items()} | {"": (tiles, each)},
    )


class _CrownsOf:
    """Crowns of one picture: `labels`, `px` diameters, `masks`; crown centres in `tiles`, of those
    that somebody labelled; rows that are none."""

    def __init__(self, pictures: PictureSet, i: int, tile_size: int) -> None:
        table = pictures.table(i)
        rows = np.flatnonzero(table.labels > 0)
        self.gsd_m = pictures.gsd_m(i)
        self.labels = table.labels[rows]
        self.masks = table.has_mask[rows]
        self.px = np.array([table.diameter(int(row)) for row in rows], dtype=np.float64)
        self.crowds = int((table.ignored > 0).sum())
        self.ignored = int((table.ignored == 0).sum())
        h, w = pictures.pictures[i].grid_hw
        cells = (math.ceil(h / tile_size), math.ceil(w / tile_size))
        boxes = table.boxes_xyxy[rows]
        centre = ((boxes[:, :2] + boxes[:, 2:]) / 2 // tile_size).astype(int)
        tiles = np.zeros(cells, dtype=np.int64)
        np.add.at(tiles, (centre[:, 1].clip(0, cells[0] - 1), centre[:, 0].clip(0, cells[1] - 1)), 1)
        known = [[_looked_at(pictures, i, (x, y, tile_size, tile_size)) for x in range(0, w, tile_size)]
                 for y in range(0, h, tile_size)]  # fmt: skip
        self.tiles = tiles[np.array(known).reshape(cells) | (tiles > 0)]


def _looked_at(pictures: PictureSet, i: int, tile: Rect) -> bool:
    """Whether any of a tile is labelled."""
    (h, w), (x, y, *side) = pictures.pictures[i].grid_hw, tile
    found = pictures.labelled(i, (x, y, min(side[0], w - x), min(side[1], h - y)))
    return found is None or bool(found.any())


def _of_class(crowns: Sequence[_CrownsOf], label: int) -> tuple[CrownClass, tuple[Array, Array]]:
    mine = [crown.labels == label for crown in crowns]
    px = np.concatenate([crown.px[own] for crown, own in zip(crowns, mine, strict=True)])
    metres = [crown.px[own] * crown.gsd_m for crown, own in zip(crowns, mine, strict=True) if crown.gsd_m is not None]
    m = np.concatenate(metres) if metres else np.zeros(0)
    masks = sum(int(crown.masks[own].sum()) for crown, own in zip(crowns, mine, strict=True))
    found = CrownClass(len(px), masks, sum(bool(own.any()) for own in mine), Spread.of(px), Spread.of(m))
    return found, (px, m)


def _land_cover(images: str | Path, annotations: str | Path, spec: InputSpec, config: Config) -> Array:
    """float64 `[pictures, classes + 1]`: pixels of each class, the unknown ones last; each picture's pixels once."""
    side, overlap = config.validation.max_side_px, config.data.overlap
    shared: dict[str, Any] = {"min_visible_share": config.data.min_visible_share, "cache_mb": config.data.cache_mb}
    windows = EvaluationWindows(images, annotations, spec, max_side_px=side, overlap=overlap, **shared)
    classes = len(spec.semantic_classes)
    counts: dict[str, Array] = {}
    for picture, ids in _cores(windows):
        own = np.bincount(ids.reshape(-1), minlength=IGNORE + 1)
        counts[picture] = counts.get(picture, 0.0) + np.append(own[:classes], own[IGNORE]).astype(np.float64)
    return np.stack(list(counts.values())) if counts else np.zeros((0, classes + 1))


def _cores(windows: EvaluationWindows) -> Iterator[tuple[str, Array]]:
    """Picture, and ids of the land cover of each window's core."""
    for i in range(len(windows)):
        sample = windows.get(i)
        picture = sample.picture.split(":", 1)[0] if sample.ground is None else sample.ground.picture
        x0, y0, x1, y1 = sample.core_xyxy_px
        if sample.semantic is None:
            yield picture, np.full((y1 - y0, x1 - x0), IGNORE)
        else:
            yield picture, sample.semantic[y0:y1, x0:x1].numpy()
