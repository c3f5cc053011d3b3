"""The folder that `cabruca data prepare` leaves, and what it says of it."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from cabruca._version import __version__
from cabruca.config.load import config_from_dict, to_yaml
from cabruca.config.schema import Config
from cabruca.data.classes import IGNORED
from cabruca.data.prepare_ground import SLOW_READ, Ortho
from cabruca.data.prepare_labels import Labels
from cabruca.data.prepare_pictures import PicturePart, Placed, homes
from cabruca.data.prepare_sizes import Sizes, with_room
from cabruca.data.prepare_write import blocks_geojson, coco_of, write_land_cover
from cabruca.data.splits import Block

if TYPE_CHECKING:
    from cabruca.data.prepare import Wanted

CONFIG, SPLIT, INDEX, FOLDS = "config.yaml", "split.geojson", "index.json", "folds.json"

Pictures = Sequence[tuple[PicturePart, Placed]]


@dataclass(frozen=True)
class SetFacts:
    """One set: its pictures, labelled hectares, crowns of each class, and labels that it leaves undecided."""

    pictures: int
    hectares: float
    crowns: Mapping[str, int]
    ignored: int


@dataclass(frozen=True)
class Output:
    """What was prepared.

    Attributes:
        sets: `train`, `val`, `test`, `fold_1/train` and so on. boxes: labels are boxes only. notes: in words.
        block_m: side of a spatial block, None: regions were given. slow: rasters that are slow to read in windows.
        tile_size, overlap: of the configuration that was written, px.
    """

    sets: Mapping[str, SetFacts]
    boxes: bool
    notes: Sequence[str]
    block_m: float | None
    slow: Sequence[str]
    tile_size: int
    overlap: int


def write_all(
    folder: Path,
    *,
    wanted: Wanted,
    sizes: Sizes,
    base: Mapping[str, Any],
    config: Config,
    images_dir: Path,
    labels: Labels,
    placed: Sequence[Placed],
    blocks: Sequence[Block],
    parts: Mapping[str, Pictures],
    boxes: bool,
    block_m: float | None,
) -> Output:
    """Write everything into an empty folder.

    Raises:
        OSError: the disk is full, or not to be written. ConfigError: the base does not go with the data.
    """
    masks = {} if boxes else _write_masks(folder, placed, config)
    names = {c for p in placed for c in p.classes}
    known = [*dict.fromkeys((*config.model.instance_names, *config.model.semantic_names)), IGNORED]
    categories = [name for name in known if name in names]
    for name, pictures in parts.items():
        _write_json(folder / file_of(name), coco_of(pictures, categories, labels, masks, boxes=boxes))
    facts = {name: _facts(pictures) for name, pictures in parts.items()}
    _write_json(folder / SPLIT, blocks_geojson(blocks, placed[0].ortho.crs, _block_facts(blocks, placed)))
    roomy, said = with_room(sizes, parts, config)
    text = _config_text(wanted, roomy, base, config, images_dir=images_dir, parts=parts)
    _write(folder / CONFIG, text)
    _write_json(
        folder / INDEX, _index(wanted, roomy, placed, images_dir=images_dir, parts=parts, facts=facts), indent=1
    )
    if wanted.shares.folds:
        _write_json(folder / FOLDS, _folds(wanted, images_dir), indent=1)
    slow = [str(p.ortho.path) for p in placed if p.ortho.slow_share(roomy.tile_size) > SLOW_READ]
    notes = [*labels.notes, *said, *_outside(parts, placed)]
    return Output(facts, boxes, notes, block_m, slow, roomy.tile_size, roomy.overlap)


def file_of(name: str) -> str:
    """The COCO file of a set: all lie in one folder, beside the land cover."""
    return f"{name.replace('/', '_')}.json"


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _write_json(path: Path, content: Any, indent: int | None = None) -> None:
    _write(path, json.dumps(content, allow_nan=False, indent=indent) + "\n")


def _write_masks(folder: Path, placed: Sequence[Placed], config: Config) -> dict[str, str]:
    (folder / "land_cover").mkdir()
    out = {}
    for k, one in enumerate(placed, 1):
        stem = Path(one.ortho.name).stem
        out[one.ortho.name] = f"land_cover/{stem}.tif" if len(placed) == 1 else f"land_cover/{k}_{stem}.tif"
        write_land_cover(folder / out[one.ortho.name], one, config.model.semantic_names)
    return out


def _facts(pictures: Pictures) -> SetFacts:
    crowns = Counter(placed.classes[k] for part, placed in pictures for k in part.crowns)
    ignored = sum(len(part.ignored) for part, _ in pictures)
    hectares = sum(part.hectares for part, _ in pictures)
    return SetFacts(len(pictures), round(hectares, 4), dict(sorted(crowns.items())), ignored)


def _block_facts(blocks: Sequence[Block], placed: Sequence[Placed]) -> list[dict[str, Any]]:
    counts = np.zeros(len(blocks), dtype=int)
    for one in placed:
        crs = placed[0].ortho.crs
        px = one.ortho.to_px(np.array([b.shape for b in blocks], dtype=object), crs, what="the split", dense=True)
        home = homes(one, px)
        counts += np.bincount(home[home >= 0], minlength=len(blocks))
    return [{"crowns": int(n)} for n in counts]


def _outside(parts: Mapping[str, Pictures], placed: Sequence[Placed]) -> list[str]:
    counted = {(p.ortho.name, k) for name, own in parts.items() if "/" not in name for q, p in own for k in q.crowns}
    total = sum(sum(c != IGNORED for c in p.classes) for p in placed)
    lost = total - len(counted)
    return [f"{lost} of {total} labels lie outside of the labelled ground and are counted nowhere"] if lost else []


def _config_text(
    wanted: Wanted,
    sizes: Sizes,
    base: Mapping[str, Any],
    config: Config,
    *,
    images_dir: Path,
    parts: Mapping[str, Pictures],
) -> str:
    out = Path(wanted.out)
    data = dict(base.get("data") or {})
    for key in ("category_map",):
        data.pop(key, None)
    for name in ("train", "val", "test"):
        data[f"{name}_dir"] = str(images_dir)
        data[f"{name}_annotations"] = str(out / f"{name}.json") if name in parts else ""
    data |= {"tile_size": sizes.tile_size, "overlap": sizes.overlap}
    text = {**base, "data": data}
    most = max(_most_crowded(own, config.validation.max_side_px) for own in parts.values())
    if most > config.validation.max_detections:
        raised = math.ceil(most * 1.25 / 50) * 50
        text["validation"] = {**(base.get("validation") or {}), "max_detections": raised}
    config_from_dict(text)
    head = f"# Written by cabruca data prepare; the data lie in {out}. Every key is in docs/configuration.md.\n"
    return head + to_yaml(text)


def _folds(wanted: Wanted, images_dir: Path) -> dict[str, Any]:
    """What `cabruca tune` takes: the data of each fold."""

    def fold(k: int) -> dict[str, str]:
        files = {f"{n}_annotations": str(Path(wanted.out) / file_of(f"fold_{k}/{n}")) for n in ("train", "val")}
        return {"train_dir": str(images_dir), "val_dir": str(images_dir), **files}

    return {"folds": [fold(k) for k in range(1, wanted.shares.folds + 1)]}


def _most_crowded(pictures: Pictures, side: int) -> int:
    most = 0
    for part, placed in pictures:
        points = shapely.get_coordinates(placed.centres[list(part.crowns)])
        cells = Counter(map(tuple, ((points - part.window[:2]) // side).astype(int).tolist()))
        most = max([most, *cells.values()])
    return most


def _index(
    wanted: Wanted,
    sizes: Sizes,
    placed: Sequence[Placed],
    *,
    images_dir: Path,
    parts: Mapping[str, Pictures],
    facts: Mapping[str, SetFacts],
) -> dict[str, Any]:
    """What was made of what, and the windows of each set."""
    asked = {k: v for k, v in asdict(wanted).items() if k not in ("images", "shares")}
    windows = {
        name: [
            {"image": part.ortho.name, "window": list(part.window), "hectares": round(part.hectares, 4),
             "crowns": len(part.crowns), "ignored": len(part.ignored)}
            for part, _ in own
        ]
        for name, own in parts.items()
    }  # fmt: skip
    return {
        "cabruca": __version__,
        "asked": {**asked, **asdict(wanted.shares), "tile_size": sizes.tile_size, "overlap": sizes.overlap},
        "images_dir": str(images_dir),
        "images": [_raster(p.ortho) for p in placed],
        "sets": {name: asdict(one) for name, one in facts.items()},
        "windows": windows,
    }


def _raster(ortho: Ortho) -> dict[str, Any]:
    info = ortho.info
    return {
        "file_name": ortho.name, "width": info.width, "height": info.height, "bands": info.count, "dtype": info.dtype,
        "gsd_m": info.gsd_m, "crs": info.crs,
    }  # fmt: skip
