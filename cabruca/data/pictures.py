"""A set of annotated pictures seen on one ground sampling distance: pixels, semantic truth and crowns of a window."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cabruca.data import raster
from cabruca.data.classes import class_meanings
from cabruca.data.coco import Image, read_coco
from cabruca.data.crowns import CropCache, CrownTable
from cabruca.data.raster import Array, Rect
from cabruca.errors import DataError
from cabruca.structures import IGNORE, InputSpec


@dataclass(frozen=True)
class PictureInfo:
    """One picture: its row in the file, its path, the grid that windows are read from (`target_gsd_m` applied), and
    metres a grid pixel (None = unknown)."""

    image: Image
    path: Path
    grid_hw: tuple[int, int]
    gsd_m: float | None


class PictureSet:
    """Reads windows of the pictures of a COCO file. Pickles small: caches and handles stay behind.

    Raises:
        DataError: in the constructor for a broken file, unmapped categories, missing pictures, or a
            `target_gsd_m` on a picture whose ground sampling distance is unknown.
    """

    def __init__(self, images_dir: str | Path, annotations: str | Path, spec: InputSpec, *, cache_mb: int) -> None:
        coco = read_coco(annotations)
        self.spec = spec
        self._meanings = class_meanings(
            coco.categories, spec.category_map, spec.instance_classes, spec.semantic_classes, str(coco.path)
        )
        if not coco.images:
            raise DataError(f"{coco.path} lists no images; give a COCO file with at least one")
        self.pictures = [_picture_info(Path(images_dir), image, spec.gsd_m) for image in coco.images]
        rows = [(m, a) for i in coco.images for a in i.annotations if (m := self._meanings[a.category_id])]
        masked = [m for m, a in rows if a.outline is not None and not a.crowd]
        self._labels_with_masks = {m.label for m in masked} - {0}
        self._paints = any(m.semantic is not None for m in masked) and not coco.box_annotated
        self._images_dir, self._coco_dir = Path(images_dir), coco.path.parent
        self._budget = cache_mb << 20
        self._fresh_caches()

    def _fresh_caches(self) -> None:
        self._decoded: OrderedDict[tuple[Path, Rect, bool], tuple[Array, npt.NDArray[np.bool_]]] = OrderedDict()
        self._decoded_bytes = 0
        self._tables: dict[int, CrownTable] = {}
        self._crops = CropCache()
        self._infos: dict[Path, raster.RasterInfo] = {}

    def __getstate__(self) -> dict[str, Any]:
        caches = ("_decoded", "_decoded_bytes", "_tables", "_crops", "_infos")
        return {k: v for k, v in self.__dict__.items() if k not in caches}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fresh_caches()

    def __len__(self) -> int:
        return len(self.pictures)

    def has_masks(self, label: int) -> bool:
        """Whether any crown of instance class `label` has a mask."""
        return label in self._labels_with_masks

    def labels(self) -> Iterator[int]:
        """The instance class of each crown, groups left out."""
        rows = [a for p in self.pictures for a in p.image.annotations if not a.crowd]
        yield from (m.label for a in rows if (m := self._meanings[a.category_id]) and m.label)

    def pixels(self, i: int, window: Rect) -> tuple[Array, npt.NDArray[np.bool_]]:
        """`[C, h, w]` in the raster's type, and `[h, w]` False at NoData and outside. See `raster.read`."""
        picture = self.pictures[i]
        self._check(picture)
        return self._read(picture, picture.path, self.spec.bands, window, nearest=False)

    def labelled(self, i: int, window: Rect) -> npt.NDArray[np.bool_] | None:
        """bool `[h, w]` of the window, False where nobody looked for crowns; None where all of it is labelled."""
        picture = self.pictures[i]
        return None if picture.image.labelled is None else picture.image.labelled.paint(window, picture.grid_hw)

    def known_map(self, i: int) -> npt.NDArray[np.float32]:
        """Share of pixels that are known and labelled, coarse, over the whole picture."""
        image = self.pictures[i].image
        share = raster.valid_share_map(self.pictures[i].path, area=image.window)
        return share if image.labelled is None else share * image.labelled.share_map(share.shape)

    def semantic_raster(self, i: int, window: Rect) -> npt.NDArray[np.uint8] | None:
        """The picture's own mask raster in the window, 255 where unknown; None when it has none.

        Raises:
            DataError: another size than the picture, or ids that are no class.
        """
        picture = self.pictures[i]
        name = picture.image.semantic_mask
        if name is None:
            return None
        path = mask_path(self._images_dir, self._coco_dir, picture.image)
        found = self._info(path)
        height, width = picture.image.raster_hw
        if (found.height, found.width) != (height, width):
            raise DataError(
                f"semantic mask '{path}' is {found.width} x {found.height} px and its picture is "
                f"{width} x {height}; they must be equal"
            )
        ids, valid = self._read(picture, path, (1,), window, nearest=True)
        known = ids[0][valid & (ids[0] != IGNORE)]
        classes = len(self.spec.semantic_classes)
        if known.size and (known.max() >= classes or known.min() < 0):
            raise DataError(
                f"semantic mask '{path}' holds id {int(known.max())} and there are {classes} classes "
                f"(0 to {classes - 1}, 255 = ignored); mend the mask or raise model.num_semantic_classes"
            )
        return np.where(valid, ids[0], IGNORE).astype(np.uint8)

    def table(self, i: int) -> CrownTable:
        """The picture's annotations."""
        if i not in self._tables:
            if len(self._tables) >= 256:
                self._tables.pop(next(iter(self._tables)))
            picture = self.pictures[i]
            gsd_m = self.gsd_m(i)
            self._tables[i] = CrownTable(
                picture.image, self._meanings, picture.grid_hw, gsd_m, crops=self._crops, number=i
            )
        return self._tables[i]

    def paints(self, i: int) -> bool:
        """Whether semantic truth can be painted from the picture's annotations: not where all of them are boxes."""
        rows = [a for a in self.pictures[i].image.annotations if not a.crowd]
        return self._paints and (not rows or any(a.outline is not None for a in rows))

    def gsd_m(self, i: int) -> float | None:
        """Metres a grid pixel: of the annotation file, else of the raster, None where neither says."""
        picture = self.pictures[i]
        return picture.gsd_m if picture.gsd_m is not None else self._info(picture.path).gsd_m

    def header(self, i: int) -> raster.RasterInfo:
        """What the raster says of itself."""
        return self._info(self.pictures[i].path)

    def dtype(self, i: int) -> str:
        """The raster's pixel type."""
        return self._info(self.pictures[i].path).dtype

    def _info(self, path: Path) -> raster.RasterInfo:
        if path not in self._infos:
            self._infos[path] = raster.info(path)
        return self._infos[path]

    def _check(self, picture: PictureInfo) -> None:
        found, (height, width) = self._info(picture.path), picture.image.raster_hw
        if (found.height, found.width) != (height, width):
            raise DataError(
                f"picture '{picture.path}' is {found.width} x {found.height} px and the annotation file says "
                f"{width} x {height}; correct the file or the picture"
            )
        if found.palette:
            raise DataError(f"picture '{picture.path}' stores palette numbers, not colours; convert it to RGB")
        trained = self.spec.dtype
        if trained is not None and raster.default_scale(found.dtype) != self.spec.scale:
            raise DataError(
                f"picture '{picture.path}' has {found.dtype} pixels and the network learnt from {trained} pixels "
                f"divided by {self.spec.scale:g}; convert it to {trained}, or train with data.scale for both"
            )

    def _read(
        self, picture: PictureInfo, path: Path, bands: tuple[int, ...], window: Rect, *, nearest: bool
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        found, grid_hw, area = self._info(path), picture.grid_hw, picture.image.window
        size = grid_hw[0] * grid_hw[1] * (len(bands) * np.dtype(found.dtype).itemsize + 1)
        if found.cheap_windows or size > self._budget // 2:
            return raster.read(path, bands, window, grid_hw=grid_hw, nearest=nearest, area=area)
        key = (path, area, nearest)
        if key not in self._decoded:
            everything = (0, 0, grid_hw[1], grid_hw[0])
            self._decoded[key] = raster.read(path, bands, everything, grid_hw=grid_hw, nearest=nearest, area=area)
            self._decoded_bytes += size
            while self._decoded_bytes > self._budget:
                _, (old, _) = self._decoded.popitem(last=False)
                self._decoded_bytes -= old.nbytes + old.shape[1] * old.shape[2]
        self._decoded.move_to_end(key)
        return _cut(*self._decoded[key], window)


def mask_path(images_dir: Path, coco_dir: Path, image: Image) -> Path:
    """The picture's own mask raster: of a part of a raster it lies beside the COCO file.

    Raises:
        DataError: it is not there, or its name leaves the folder.
    """
    folder = images_dir if image.part is None else coco_dir
    return raster.resolve(folder, image.semantic_mask or "", f"image {image.id}: semantic_mask")


def _cut(pixels: Array, valid: npt.NDArray[np.bool_], window: Rect) -> tuple[Array, npt.NDArray[np.bool_]]:
    """A window of a decoded picture, zero and unknown outside of it (a view where it lies inside)."""
    x, y, w, h = window
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, valid.shape[1]), min(y + h, valid.shape[0])
    if (x0, y0, x1, y1) == (x, y, x + w, y + h):
        return pixels[:, y:y1, x:x1], valid[y:y1, x:x1]
    out, known = np.zeros((pixels.shape[0], h, w), dtype=pixels.dtype), np.zeros((h, w), dtype=np.bool_)
    if x1 > x0 and y1 > y0:
        out[:, y0 - y : y1 - y, x0 - x : x1 - x] = pixels[:, y0:y1, x0:x1]
        known[y0 - y : y1 - y, x0 - x : x1 - x] = valid[y0:y1, x0:x1]
    return out, known


def _picture_info(folder: Path, image: Image, target_gsd_m: float | None) -> PictureInfo:
    path = raster.resolve(folder, image.file_name, f"image {image.id}: file_name")
    if target_gsd_m is None:
        return PictureInfo(image, path, (image.height, image.width), image.gsd_m)
    native = image.gsd_m if image.gsd_m is not None else raster.info(path).gsd_m
    if native is None:
        raise DataError(
            f"data.target_gsd_m is {target_gsd_m} and the ground sampling distance of '{path}' is unknown; "
            "give images[].gsd_m in the annotation file, or leave target_gsd_m out"
        )
    shrink = native / target_gsd_m
    grid_hw = (max(1, round(image.height * shrink)), max(1, round(image.width * shrink)))
    return PictureInfo(image, path, grid_hw, target_gsd_m)
