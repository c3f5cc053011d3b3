"""What is wrong with single pictures and mask rasters of an annotated set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cabruca.config.schema import Config
from cabruca.data import raster
from cabruca.data.classes import Meaning
from cabruca.data.coco import Coco, Image
from cabruca.data.pictures import mask_path
from cabruca.data.raster import Array
from cabruca.errors import DataError
from cabruca.structures import IGNORE

STRIPE_PX = 1 << 24
"""Pixels of a mask that are looked at together."""


@dataclass(frozen=True)
class AnnotatedSet:
    """One annotated set of the configuration."""

    name: str
    folder: Path
    coco: Coco
    meanings: dict[int, Meaning | None]

    def mask(self, image: Image) -> Path:
        """Raises DataError: the picture's mask raster is not there."""
        return mask_path(self.folder, self.coco.path.parent, image)


def picture_errors(part: AnnotatedSet, image: Image, config: Config) -> Iterator[str]:
    where = f"{part.name}: image {image.id}"
    files = [(image.file_name, "file_name"), (image.semantic_mask, "semantic_mask")]
    for name, key in files:
        if name is None:
            continue
        try:
            path = raster.resolve(part.folder, name, f"{where}: {key}") if key == "file_name" else part.mask(image)
            found = raster.info(path)
        except DataError as error:
            yield str(error)
            continue
        if (found.height, found.width) != image.raster_hw:
            yield (
                f"{where}: {key} '{name}' is {found.width} x {found.height} px and the annotation file says "
                f"{image.raster_hw[1]} x {image.raster_hw[0]}; correct the file or the picture"
            )
        elif key == "semantic_mask":
            continue
        elif max(config.data.bands) > found.count:
            yield (
                f"{where}: '{name}' has {found.count} band(s) and data.bands asks for {list(config.data.bands)}; "
                f"set data.bands to numbers from 1 to {found.count}"
            )
        elif config.data.target_gsd_m is not None and image.gsd_m is None and found.gsd_m is None:
            yield (
                f"{where}: data.target_gsd_m is {config.data.target_gsd_m} and the ground sampling distance of "
                f"'{name}' is unknown; give images[].gsd_m in the annotation file, or leave target_gsd_m out"
            )


def mask_errors(part: AnnotatedSet, image: Image, config: Config) -> Iterator[str]:
    """Semantic ids that are no class (the whole mask is read)."""
    if image.semantic_mask is None:
        return
    try:
        found = list(_mask_ids(part.mask(image), image))
    except DataError:
        return  # named already
    classes = config.model.num_semantic_classes
    ids = np.unique(np.concatenate(found))
    wrong = ids[(ids != IGNORE) & ((ids < 0) | (ids >= classes))]
    if wrong.size:
        yield (
            f"{part.name}: semantic mask '{image.semantic_mask}' holds {wrong.tolist()} and the classes are 0 to "
            f"{classes - 1} (255 = ignored); mend the mask or raise model.num_semantic_classes"
        )


def _mask_ids(path: Path, image: Image) -> Iterator[Array]:
    """The ids of each stripe of the mask, each once: a mask may be larger than memory."""
    step = max(1, STRIPE_PX // image.width)
    for y in range(0, image.height, step):
        window = (0, y, image.width, min(step, image.height - y))
        ids, valid = raster.read(path, (1,), window, nearest=True, area=image.window)
        yield np.unique(ids[0][valid])
