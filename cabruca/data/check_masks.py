"""Crowns that are one class in the annotations and another in the mask rasters: a network would learn a contradiction.

`data.category_map` renames what is annotated; the ids of a mask raster stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cabruca.config.schema import Config
from cabruca.data import raster
from cabruca.data.check_pictures import STRIPE_PX, AnnotatedSet
from cabruca.data.coco import Annotation, Image
from cabruca.data.masks import Crop
from cabruca.errors import DataError
from cabruca.structures import IGNORE

LEAST_PX = 400
"""Known pixels of a category's crowns below which nothing is said: a few crowns may simply be drawn beside the mask."""

NOBODY, SEVERAL = 0, -1
"""Owner of a pixel without a crown, and of one that crowns of several classes cover or that is undecided: there the
mask has to say one of them, and either is right."""

Ids = npt.NDArray[np.int16]


def contradictions(part: AnnotatedSet, config: Config) -> Iterator[str]:
    """One line for each category whose crowns lie, for the most part, where the masks say another crown class.

    Counted are pixels that the mask knows and no crown of another class covers. A class that the masks do not tell
    apart (it is no land cover) contradicts nothing.
    """
    instance, semantic = config.model.instance_names, config.model.semantic_names
    rivals = {name: semantic.index(name) for name in instance if name in semantic}
    counts = {c: np.zeros(IGNORE + 1, dtype=np.int64) for c in part.coco.categories}
    for image in part.coco.images:
        if image.semantic_mask is not None:
            _count(part, image, counts)
    for category, found in counts.items():
        meaning = part.meanings[category]
        if meaning is None or not meaning.label or meaning.semantic is None or found.sum() < LEAST_PX:
            continue
        own, name = instance[meaning.label - 1], part.coco.categories[category]
        for rival, ident in rivals.items():
            if rival != own and 2 * found[ident] > found.sum():
                by = f" ('{own}' by data.category_map)" if name != own else ""
                yield (
                    f"{part.name}: the semantic masks say '{rival}' on {found[ident] / found.sum():.0%} of the pixels "
                    f"of '{name}' crowns{by}, and a crown is one class; data.category_map renames no masks: map {name} "
                    f"to {rival}, or write {meaning.semantic} ({own}) into the masks there"
                )


def _count(part: AnnotatedSet, image: Image, counts: dict[int, npt.NDArray[np.int64]]) -> None:
    """Add the picture's mask ids below the crowns of each category; stripe by stripe, as a mask may be larger than
    memory. A mask that cannot be read, or is of another size, is named by the other checks."""
    try:
        path = part.mask(image)
        found = raster.info(path)
        if (found.height, found.width) != image.raster_hw:
            return
        step = max(1, STRIPE_PX // image.width)
        for y in range(0, image.height, step):
            window = (0, y, image.width, min(step, image.height - y))
            near = [a for a in image.annotations if a.box_xyxy_px[3] > y and a.box_xyxy_px[1] < y + window[3]]
            if not near:
                continue
            owner = _owners(part, image, near, window)
            ids, valid = raster.read(path, (1,), window, nearest=True, area=image.window)
            known = valid & (ids[0] >= 0) & (ids[0] < IGNORE) & (owner > NOBODY)
            for k, category in enumerate(counts, 1):
                own = ids[0][known & (owner == k)].astype(np.int64)
                counts[category] += np.bincount(own, minlength=IGNORE + 1)
    except DataError:
        return


def _owners(part: AnnotatedSet, image: Image, near: list[Annotation], window: tuple[int, int, int, int]) -> Ids:
    """int16 `[h, w]` of the stripe: 1 + position of the category whose crown lies there, NOBODY or SEVERAL."""
    _, top, width, height = window
    order = {c: k for k, c in enumerate(part.coco.categories, 1)}
    # the last is that of SEVERAL, which is no class
    labels = np.array([NOBODY, *(m.label if (m := part.meanings[c]) else NOBODY for c in order), SEVERAL])
    owner = np.zeros((height, width), dtype=np.int16)
    for a in near:
        meaning = part.meanings[a.category_id]
        if meaning is not None and not meaning.label:
            continue  # land cover: with a mask raster it is not painted
        x, y, bitmap = _crop(a, image) or (0, 0, np.zeros((0, 0), dtype=np.uint8))
        y0, y1 = max(y, top), min(y + bitmap.shape[0], top + height)
        if y1 <= y0:
            continue
        inside = bitmap[y0 - y : y1 - y] > 0
        below = owner[y0 - top : y1 - top, x : x + bitmap.shape[1]]
        if meaning is None or a.crowd:
            below[inside] = SEVERAL
        else:
            free = (below == NOBODY) | (labels[below] == meaning.label)
            below[inside] = np.where(free, order[a.category_id], SEVERAL)[inside]
    return owner


def _crop(annotation: Annotation, image: Image) -> Crop | None:
    """The crown's pixels; of a box the rectangle."""
    size_hw = (image.height, image.width)
    if annotation.outline is not None:
        return annotation.paint(size_hw, size_hw)
    x0, y0 = (math.floor(v) for v in annotation.box_xyxy_px[:2])
    x1, y1 = (math.ceil(v) for v in annotation.box_xyxy_px[2:])
    if x1 <= 0 or y1 <= 0 or x0 >= image.width or y0 >= image.height:
        return None
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, image.width), min(y1, image.height)
    return x0, y0, np.ones((y1 - y0, x1 - x0), dtype=np.uint8)
