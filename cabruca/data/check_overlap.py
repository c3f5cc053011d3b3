"""The same picture, the same ground or the same crown in two sets: a score would then measure memory.

Ground is what is labelled: the outline of a picture that is a window of a raster, else the whole picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS

from cabruca.data import raster
from cabruca.data.coco import Annotation, Image
from cabruca.data.vector import moved
from cabruca.errors import DataError

SHARED_SHARE = 0.01
"""Two pictures show the same ground when they share more than this of the smaller one: neighbours may touch."""

SAME_CROWN = 0.5
"""Two labels whose boxes on the ground have this IoU are one crown."""

Corners = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Place:
    """Where a picture lies: a frame of reference (a CRS, "mosaic", or a file without either), its labelled ground
    there, and the way from px of the picture."""

    image: Image
    frame: str
    ground: shapely.Geometry
    to_frame: Callable[[Corners], Corners]

    def seen_from(self, shape: shapely.Geometry, frame: str) -> shapely.Geometry | None:
        """A shape of this picture's frame in another one; None where no way leads there."""
        if frame == self.frame:
            return shape
        if not (_is_crs(frame) and _is_crs(self.frame)):
            return None
        found = moved(np.array([shape], dtype=object), CRS.from_wkt(self.frame), CRS.from_wkt(frame),
                      what=f"'{self.image.file_name}'", dense=True)  # fmt: skip
        return found[0]


def _is_crs(frame: str) -> bool:
    return not frame.startswith(("mosaic", "file "))


class Places:
    """The pictures of one set on the ground.

    Args:
        is_crown: whether an annotation is a crown that is counted.
    """

    def __init__(
        self, name: str, folder: Path, images: Sequence[Image], is_crown: Callable[[Annotation], bool]
    ) -> None:
        self.name, self.folder, self.images, self._is_crown = name, folder, images, is_crown

    @cached_property
    def digests(self) -> dict[str, Image]:
        """sha256 of each file -> a picture of it."""
        cache: dict[str, str | None] = {}
        for image in self.images:
            if image.file_name not in cache:
                cache[image.file_name] = _digest(self.folder, image)
        return {d: i for i in self.images if (d := cache[i.file_name])}

    @cached_property
    def known(self) -> list[_Place]:
        return [place for image in self.images if (place := _place(self.folder, image))]

    def crowns(self, place: _Place) -> list[shapely.Geometry]:
        """Boxes of the picture's crowns in its frame (four corners: the raster may be turned)."""
        boxes = [a.box_xyxy_px for a in place.image.annotations if self._is_crown(a)]
        shapes = shapely.box(*np.array(boxes, dtype=np.float64).reshape(-1, 4).T)
        return list(shapely.transform(shapes, place.to_frame))


def same_pictures(train: Places, val: Places) -> Iterator[str]:
    """One line for each picture of val whose file is also one of train; windows of one raster are no such thing."""
    for digest, image in val.digests.items():
        twin = train.digests.get(digest)
        if twin is not None and (twin.part is None or image.part is None):
            yield (
                f"{val.name} picture '{image.file_name}' is the {train.name} picture '{twin.file_name}'; "
                "remove it from one of them"
            )


def same_ground(train: Places, val: Places) -> Iterator[str]:
    """One line for each picture of val that shares labelled ground with one of train: by georeference, else by
    `mosaic_x`, `mosaic_y`, else as windows of one file; and one for crowns that both count."""
    leaked = 0
    for place in val.known:
        named = False
        for other in train.known:
            ground = other.seen_from(other.ground, place.frame)
            if ground is None:
                continue
            share = place.ground.intersection(ground).area / min(place.ground.area, ground.area)
            if share > SHARED_SHARE and not named:
                named = True
                yield (
                    f"{val.name} picture {_name(place.image)} shares {share:.0%} of its ground with the {train.name} "
                    f"picture {_name(other.image)}; split by blocks of ground"
                )
            if place.ground.envelope.intersects(ground.envelope):
                theirs = [other.seen_from(c, place.frame) for c in train.crowns(other)]
                leaked += _twins(val.crowns(place), [c for c in theirs if c is not None])
    if leaked:
        yield f"{leaked} crown(s) of {val.name} are also crowns of {train.name}; give each crown to one set"


def _name(image: Image) -> str:
    return f"'{image.file_name}'" + ("" if image.part is None else f" (window {list(image.window)})")


def _twins(own: Sequence[shapely.Geometry], theirs: Sequence[shapely.Geometry]) -> int:
    """How many of `own` are also among `theirs`."""
    if not own or not theirs:
        return 0
    a, b = np.array(own, dtype=object), np.array(theirs, dtype=object)
    i, j = shapely.STRtree(b).query(a, predicate="intersects")
    shared = shapely.area(shapely.intersection(a[i], b[j]))
    iou = shared / np.maximum(shapely.area(a[i]) + shapely.area(b[j]) - shared, 1e-30)
    return len(set(i[iou >= SAME_CROWN].tolist()))


def _digest(folder: Path, image: Image) -> str | None:
    try:
        path = raster.resolve(folder, image.file_name, "file_name")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (DataError, OSError):
        return None  # named by the other checks


def _place(folder: Path, image: Image) -> _Place | None:
    try:
        path = raster.resolve(folder, image.file_name, "file_name")
        found = raster.info(path)
    except DataError:
        return None
    left, top = image.window[:2]
    if found.crs is not None and found.affine is not None:
        frame, affine = found.crs, found.affine
    elif image.mosaic_xy_px is not None:
        frame, affine = "mosaic", (1.0, 0.0, float(image.mosaic_xy_px[0]), 0.0, 1.0, float(image.mosaic_xy_px[1]))
    elif image.part is not None:
        frame, affine = f"file {path.resolve()}", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    else:
        return None
    a, b, c, d, e, f = affine

    def to_frame(points: Corners) -> Corners:
        x, y = points[:, 0] + left, points[:, 1] + top
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    whole = shapely.box(0, 0, image.width, image.height)
    shape = whole if image.labelled is None else image.labelled.shape.intersection(whole)
    return _Place(image, frame, shapely.transform(shape, to_frame), to_frame)
