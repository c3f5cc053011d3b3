"""Looks for what would spoil a training: the quick half before each one, the full half in `cabruca data check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal

from cabruca.config.schema import Config
from cabruca.data import raster
from cabruca.data.check_masks import contradictions
from cabruca.data.check_overlap import Places, same_ground, same_pictures
from cabruca.data.check_pictures import AnnotatedSet, mask_errors, picture_errors
from cabruca.data.classes import class_meanings
from cabruca.data.coco import Annotation, Image, read_coco
from cabruca.errors import DataError, did_you_mean

RARE_SHARE = 0.01
"""A class with a smaller share of the crowns is named."""

Level = Literal["error", "warning", "fact"]


@dataclass(frozen=True)
class Finding:
    """One line: an error stops a training, a warning is worth a look, a fact is for the record."""

    level: Level
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Report:
    """What the full check found."""

    findings: tuple[Finding, ...]

    def of(self, level: Level) -> list[str]:
        return [f.text for f in self.findings if f.level == level]

    @property
    def errors(self) -> list[str]:
        return self.of("error")

    @property
    def warnings(self) -> list[str]:
        return self.of("warning")

    @property
    def facts(self) -> list[str]:
        return self.of("fact")

    @property
    def ok(self) -> bool:
        """No errors (the command then exits with 0, else with 2)."""
        return not self.errors

    def __str__(self) -> str:
        lines = [f"{level:>7}: {text}" for level in ("fact", "warning", "error") for text in self.of(level)]
        return "\n".join([*lines, f"{len(self.errors)} error(s), {len(self.warnings)} warning(s)"])


def quick_check(config: Config) -> list[Finding]:
    """Files are there, categories have classes, pictures have the size, bands and ground sampling distance they need.

    Headers only: no pixel is read.

    Raises:
        DataError: the first thing that is wrong.
    """
    findings: list[Finding] = []
    sets: list[AnnotatedSet] = []
    for name in ("train", "val"):
        part = _load(config, name)
        findings += [Finding("fact", text) for text in _facts(part)]
        for image in part.coco.images:
            wrong = next(picture_errors(part, image, config), None)
            if wrong is not None:
                raise DataError(wrong)
        sets.append(part)
    findings += [Finding("warning", text) for text in _unseen(sets[0], config)]
    for wrong in _scale_errors(sets, config):
        raise DataError(wrong)
    return findings


def full_check(config: Config) -> Report:
    """Everything of the quick check on every picture, and: boxes outside, empty pictures, class balance, crowns whose
    mask raster says another class, crowns per tile against `validation.max_detections`, the same picture, ground or
    crown in two sets. The test set is looked at where its file is there. Does not raise: what cannot be read is an
    error of the report."""
    findings: list[Finding] = []
    sets: list[AnnotatedSet] = []
    for name in _named_sets(config):
        try:
            part = _load(config, name)
        except DataError as error:
            findings.append(Finding("error", str(error)))
            continue
        sets.append(part)
        findings += [Finding("fact", text) for text in _facts(part)]
        findings += [Finding("error", e) for image in part.coco.images for e in picture_errors(part, image, config)]
        findings += [Finding("error", e) for image in part.coco.images for e in mask_errors(part, image, config)]
        findings += [Finding("warning", text) for text in (*_warnings(part, config), *contradictions(part, config))]
    places = [Places(p.name, p.folder, p.coco.images, partial(_is_crown, p)) for p in sets]
    for first, second in combinations(places, 2):
        findings += [Finding("error", text) for text in (*same_pictures(first, second), *same_ground(first, second))]
    findings += [Finding("error", text) for text in _scale_errors(sets, config)]
    findings += [Finding("warning", text) for text in _stray_keys(sets, config)]
    return Report(tuple(findings))


def _named_sets(config: Config) -> list[str]:
    return ["train", "val", *(["test"] if Path(config.data.test_annotations).is_file() else [])]


def _load(config: Config, name: str) -> AnnotatedSet:
    data = config.data
    folder, file = getattr(data, f"{name}_dir"), getattr(data, f"{name}_annotations")
    coco = read_coco(file)
    if not coco.images:
        raise DataError(f"{name}: {file} lists no images; give a COCO file with at least one")
    if not Path(folder).is_dir():
        raise DataError(f"{name}: images folder '{folder}' is not there; check data.{name}_dir")
    model = config.model
    meanings = class_meanings(
        coco.categories, data.category_map, model.instance_names, model.semantic_names, str(coco.path)
    )
    return AnnotatedSet(name, Path(folder), coco, meanings)


def _facts(part: AnnotatedSet) -> list[str]:
    crowns = _crowns_by_class(part)
    kind = "boxes only" if part.coco.box_annotated else "masks"
    counts = ", ".join(f"{n} {name}" for name, n in crowns.most_common()) or "no crowns"
    rasters = sum(i.semantic_mask is not None for i in part.coco.images)
    return [f"{part.name}: {len(part.coco.images)} picture(s), {counts} ({kind}), {rasters} semantic mask(s)"]


def _crowns_by_class(part: AnnotatedSet) -> Counter[str]:
    """Crowns of each dataset category that is an instance class."""
    names: Counter[str] = Counter()
    for image in part.coco.images:
        for a in image.annotations:
            if _is_crown(part, a):
                names[part.coco.categories[a.category_id]] += 1
    return names


def _warnings(part: AnnotatedSet, config: Config) -> Iterator[str]:
    crowns = _crowns_by_class(part)
    total = sum(crowns.values())
    for name, count in crowns.items():
        if count < RARE_SHARE * total:
            yield f"{part.name}: '{name}' is {count} of {total} crowns; under {RARE_SHARE:.0%} a class is hardly learnt"
    if part.name == "train" and total:
        yield from _unseen(part, config)
    if total == 0:
        yield f"{part.name}: not one crown of an instance class; the instance head learns nothing from it"
    outside = [a.id for i in part.coco.images for a in i.annotations if not a.crowd and _leaves(a.box_xyxy_px, i)]
    if outside:
        yield f"{part.name}: {len(outside)} box(es) reach outside their picture (first: {outside[0]}); they are clipped"
    empty = [i.file_name for i in part.coco.images if not i.annotations and i.semantic_mask is None]
    if empty:
        yield f"{part.name}: {len(empty)} picture(s) without any annotation ({empty[0]}); they teach 'no crown here'"
    yield from _crowded(part, config)
    yield from _larger_than_overlap(part, config)


def _stray_keys(sets: list[AnnotatedSet], config: Config) -> Iterator[str]:
    """Of the category map: what is no category of any set; of a set that cannot be read nobody knows."""
    known = {name for part in sets for name in part.coco.categories.values()}
    for key in config.data.category_map:
        if key not in known and len(sets) == len(_named_sets(config)):
            hint = did_you_mean(key, known) or f"; the categories are {', '.join(sorted(known))}"
            yield f"data.category_map names '{key}', which is no category of {', '.join(p.name for p in sets)}{hint}"


def _unseen(train: AnnotatedSet, config: Config) -> Iterator[str]:
    """Classes that the network will name and never saw."""
    seen = {
        m.label
        for i in train.coco.images
        for a in i.annotations
        if _is_crown(train, a) and (m := train.meanings[a.category_id])
    }
    missing = [f"'{name}'" for label, name in enumerate(config.model.instance_names, 1) if label not in seen]
    if missing and "instance" in config.model.heads:
        yield (
            f"{train.name}: no crown of {', '.join(missing)} to learn from, so what the network says of it is a guess; "
            "add examples, or leave the class out (model.num_instance_classes, model.instance_class_names)"
        )


def _larger_than_overlap(part: AnnotatedSet, config: Config) -> Iterator[str]:
    """Crowns that no window of a validation grid is sure to show whole: found ones may then be counted wrongly."""
    if part.name != "val":
        return
    overlap, wide = config.data.overlap, []
    for image in part.coco.images:
        zoom = _grid_zoom(part, image, config)
        if max(image.height, image.width) * zoom <= config.validation.max_side_px:
            continue
        boxes = [a.box_xyxy_px for a in image.annotations if _is_crown(part, a)]
        wide += [side for b in boxes if (side := max(b[2] - b[0], b[3] - b[1]) * zoom) > overlap]
    if wide:
        yield (
            f"{part.name}: {len(wide)} crown(s) of gridded pictures are larger than data.overlap, {overlap} "
            f"px (largest {max(wide):.0f}); counts of found crowns suffer, raise it or validation.max_side_px"
        )


def _grid_zoom(part: AnnotatedSet, image: Image, config: Config) -> float:
    """Grid pixels per picture pixel: other than 1 with `data.target_gsd_m`."""
    target = config.data.target_gsd_m
    if target is None:
        return 1.0
    try:
        native = image.gsd_m or raster.info(raster.resolve(part.folder, image.file_name, "file_name")).gsd_m
    except DataError:
        return 1.0  # named already
    return native / target if native is not None else 1.0


def _is_crown(part: AnnotatedSet, annotation: Annotation) -> bool:
    meaning = part.meanings[annotation.category_id]
    return meaning is not None and meaning.label > 0 and not annotation.crowd


def _scale_errors(sets: list[AnnotatedSet], config: Config) -> Iterator[str]:
    """Pixel types that would be divided by different numbers."""
    if config.data.scale is not None:
        return
    found: dict[float, str] = {}
    for part in sets:
        for image in part.coco.images:
            try:
                dtype = raster.info(raster.resolve(part.folder, image.file_name, "file_name")).dtype
            except DataError:
                continue  # named already
            found.setdefault(raster.default_scale(dtype), f"{part.name} picture '{image.file_name}' has {dtype}")
    if len(found) > 1:
        yield f"{' and '.join(found.values())} pixels; convert one of them, or set data.scale to one divisor for both"


def _leaves(box: tuple[float, float, float, float], image: Image, slack_px: float = 0.5) -> bool:
    return min(box[0], box[1]) < -slack_px or box[2] > image.width + slack_px or box[3] > image.height + slack_px


def _crowded(part: AnnotatedSet, config: Config) -> Iterator[str]:
    """Crown centres per square of `validation.max_side_px` (`tile_size` in training) against the detection cap."""
    tiles = [stage.tile_size for stage in config.training.stages] or [config.data.tile_size]
    side = config.validation.max_side_px if part.name == "val" else max(tiles)
    most, where = 0, ""
    for image in part.coco.images:
        cells: Counter[tuple[int, int]] = Counter()
        for a in image.annotations:
            if _is_crown(part, a):
                x0, y0, x1, y1 = a.box_xyxy_px
                cells[int((x0 + x1) / 2 // side), int((y0 + y1) / 2 // side)] += 1
        if cells and max(cells.values()) > most:
            most, where = max(cells.values()), image.file_name
    cap = config.validation.max_detections
    if most > cap:
        yield (
            f"{part.name}: {most} crowns on one tile of {side} px ({where}) and validation.max_detections is {cap}; "
            f"raise it to {most + most // 4} or more"
        )
