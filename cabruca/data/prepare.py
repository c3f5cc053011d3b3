"""`cabruca data prepare`: one or more orthomosaics and their labels become a data set that training reads in windows.

Nothing is cut: the pictures of the COCO files are windows of the rasters themselves. Everything is written into a
folder beside the one that is asked for, which then gets its name: an interrupted prepare leaves nothing that another
command would take for whole.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import shapely

from cabruca.config.load import config_from_dict, read_raw
from cabruca.data.prepare_ground import Ortho, labelled_ground, open_orthos, read_area, refuse_far, touching
from cabruca.data.prepare_labels import Kind, Labels, read_labels, rectangles
from cabruca.data.prepare_output import Output, write_all
from cabruca.data.prepare_pictures import Placed, homes, pictures_of, place
from cabruca.data.prepare_sizes import Sizes, sizes_of
from cabruca.data.prepare_split import Shares, region_blocks, regions_of, spatial_blocks
from cabruca.data.splits import SPLITS, Block
from cabruca.data.vector import Shapes
from cabruca.errors import DataError


@dataclass(frozen=True)
class Wanted:
    """What is asked for; see `cabruca data prepare --help`. `tile_size`, `overlap`: None, the configuration's."""

    images: Sequence[str]
    labels: str
    out: str
    layer: str | None = None
    label_field: str | None = None
    class_map: Mapping[str, str] = field(default_factory=dict)
    aoi: str | None = None
    tile_size: int | None = None
    overlap: int | None = None
    split: str = "spatial"
    shares: Shares = field(default_factory=lambda: Shares(0.2, 0.1, 0, None, 0))
    labels_are: Kind = "auto"
    config: str | None = None


def prepare(wanted: Wanted) -> Output:
    """Prepare the data.

    Raises:
        DataError, ConfigError: one line about what cannot be used; nothing is left behind.
    """
    wanted.shares.check()
    out = Path(wanted.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"--out {out} is there already; remove it, or give another folder")
    base = {} if wanted.config is None else read_raw(wanted.config)
    config = config_from_dict(base)
    sizes, said = sizes_of(wanted.tile_size, wanted.overlap, config, wanted.config)
    folder, orthos = open_orthos(wanted.images, sizes.tile_size)
    labels = read_labels(
        wanted.labels,
        layer=wanted.layer,
        label_field=wanted.label_field,
        class_map=wanted.class_map,
        classes=(*config.model.instance_names, *config.model.semantic_names),
    )
    labels.notes.extend(said)
    everything = _placed(wanted, orthos, labels)
    boxes = _are_boxes(wanted, labels, everything)
    placed = [p for p, _ in everything]
    blocks, side_m = _blocks(wanted, sizes, placed)
    parts = _parts(wanted, sizes, placed, blocks)
    _refuse_empty(parts)
    temporary = _temporary(out)
    try:
        found = write_all(
            temporary, wanted=wanted, sizes=sizes, base=base, config=config, images_dir=folder, labels=labels,
            placed=placed, blocks=blocks, parts=parts, boxes=boxes, block_m=side_m,
        )  # fmt: skip
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise DataError(f"--out {out} cannot be written ({error.strerror or error}); give another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found


def _temporary(out: Path) -> Path:
    """A new folder beside the one asked for; those that killed commands of this machine left are removed."""
    here = socket.gethostname()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(f".{out.name}.preparing-*"):
            host, _, pid = left.name.removeprefix(f".{out.name}.preparing-").rpartition("-")
            if host == here and pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
        temporary = out.parent / f".{out.name}.preparing-{here}-{os.getpid()}"
        temporary.mkdir()
    except OSError as error:
        raise DataError(f"--out {out} cannot be made ({error.strerror}); give another folder") from error
    return temporary


def _placed(wanted: Wanted, orthos: Sequence[Ortho], labels: Labels) -> list[tuple[Placed, Shapes]]:
    """The labels on each raster that any of them touches."""
    areas = [] if wanted.aoi is None else [read_area(wanted.aoi, "--aoi")]
    regions = regions_of(wanted.split)
    if regions is not None and regions[0].crs is not None:
        shapes = [shapely.make_valid(s) for s in regions[0].shapes if s is not None]
        areas.append((shapely.union_all(shapes), regions[0].crs))
    out: list[tuple[Placed, Shapes]] = []
    lost = np.ones(len(labels.shapes), dtype=bool)
    for ortho in orthos:
        px = ortho.to_px(labels.shapes, labels.crs, what=f"'{wanted.labels}'")
        rows = touching(ortho, px)
        lost[rows] = False
        ground = labelled_ground(ortho, px[rows], areas) if len(rows) or areas else None
        if ground is None:
            labels.notes.append(f"'{ortho.path}' has no labelled ground and is left out")
            continue
        out.append((place(ortho, ground, px, rows, labels.classes), px))
    if not out or not any(len(p.shapes) for p, _ in out):
        refuse_far(orthos, labels, wanted.labels)
    if lost.any():
        labels.notes.append(f"{int(lost.sum())} of {len(lost)} labels touch no raster and are left out")
    return out


def _are_boxes(wanted: Wanted, labels: Labels, everything: Sequence[tuple[Placed, Shapes]]) -> bool:
    if wanted.labels_are != "auto":
        return wanted.labels_are == "boxes"
    flat = np.concatenate([rectangles(px[p.rows]) for p, px in everything])  # whole: the raster's edge cuts corners
    if flat.all():
        labels.notes.append("all labels are upright rectangles, so they are taken as boxes (else: --labels-are crowns)")
        return True
    kind = f"{int(flat.sum())} of {len(flat)} labels are upright rectangles" if flat.any() else "labels are outlines"
    labels.notes.append(f"{kind}, so all are taken as crowns (else: --labels-are boxes)")
    return False


def _blocks(wanted: Wanted, sizes: Sizes, placed: Sequence[Placed]) -> tuple[list[Block], float | None]:
    regions = regions_of(wanted.split)
    if regions is not None:
        if wanted.shares.folds:
            raise DataError("--folds divides spatial blocks, and --split names regions; use --split spatial with it")
        return region_blocks(*regions, placed[0].ortho), None
    centres = [(p.centres[p.counted], [p.classes[k] for k in np.flatnonzero(p.counted)]) for p in placed]
    orthos, grounds = [p.ortho for p in placed], [p.ground for p in placed]
    return spatial_blocks(orthos, grounds, centres, wanted.shares, sizes.tile_size)


Parts = dict[str, list[tuple[Any, Placed]]]


def _parts(wanted: Wanted, sizes: Sizes, placed: Sequence[Placed], blocks: Sequence[Block]) -> Parts:
    """Pictures of each set: `train`, `val`, `test` and, with folds, `fold_1/train`, `fold_1/val` and so on."""
    sets: dict[str, list[int]] = {name: [k for k, b in enumerate(blocks) if b.split == name] for name in SPLITS}
    for fold in range(wanted.shares.folds):
        kept = [k for k, b in enumerate(blocks) if b.fold >= 0]
        sets[f"fold_{fold + 1}/train"] = [k for k in kept if blocks[k].fold != fold]
        sets[f"fold_{fold + 1}/val"] = [k for k in kept if blocks[k].fold == fold]
    out: Parts = {name: [] for name, own in sets.items() if own}
    plane = placed[0].ortho.crs
    for one in placed:
        px = one.ortho.to_px(np.array([b.shape for b in blocks], dtype=object), plane, what="the split", dense=True)
        home = homes(one, px)
        for name in out:
            found = pictures_of(one, px, sets[name], home, margin=sizes.overlap, tile_size=sizes.tile_size)
            out[name] += [(part, one) for part in found]
    return out


def _refuse_empty(parts: Parts) -> None:
    for name, pictures in parts.items():
        if not any(part.crowns for part, _ in pictures):
            raise DataError(
                f"'{name}' would hold no crown; use smaller blocks (--block), other shares, or regions with labels"
            )
