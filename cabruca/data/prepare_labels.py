"""Labels of `cabruca data prepare`: what each polygon is, mended, and moved to the pixels of a raster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS

from cabruca.data.classes import IGNORED
from cabruca.data.vector import Layer, Shapes, read_layer
from cabruca.errors import DataError, did_you_mean

Kind = Literal["crowns", "boxes", "auto"]

USUAL_FIELDS = ("species", "class", "label", "category")
"""Fields that are taken for the class where --label-field is not given, in this order."""

EVERY_OTHER = "*"
"""In --map: any value that no other entry names."""

BOX_FILL = 0.9
"""A shape of four corners that fills so much of the box around it is a box: one drawn in another CRS is turned by a
degree or two."""

LISTED = 8
"""So many unknown values are listed in a message."""


@dataclass(frozen=True)
class Labels:
    """Polygons in the CRS of their file, N of them, with the class of each and the value it had.

    Attributes:
        numbers: of the features in their file, from 0. notes: what was mended or left out, in words.
    """

    shapes: Shapes
    classes: tuple[str, ...]
    values: tuple[str, ...]
    crs: CRS
    numbers: tuple[int, ...]
    notes: list[str] = field(default_factory=list)


def read_labels(
    path: str, *, layer: str | None, label_field: str | None, class_map: Mapping[str, str], classes: Sequence[str]
) -> Labels:
    """The polygons of a file with their classes, invalid ones mended.

    Raises:
        DataError: see `vector.read_layer`; no CRS, no polygon, no such field, or values that are no class.
    """
    found = read_layer(path, layer=layer)
    if found.crs is None:
        raise DataError(f"'{path}' states no crs, so its labels have no place; save it with its crs (a .prj, or QGIS)")
    values = _values(found, label_field, class_map)
    names = _classes(found, values, class_map, classes)
    shapes, notes = _polygons(found)
    keep = [i for i, shape in enumerate(shapes) if shape is not None]
    if not keep:
        kinds = Counter("nothing" if s is None else s.geom_type for s in found.shapes)
        raise DataError(f"'{path}' holds {_counted(kinds)} and no polygon; draw crowns or boxes as polygons")
    kept = np.array([shapes[i] for i in keep], dtype=object)
    own = [names[i] for i in keep], [values[i] for i in keep]
    return Labels(kept, tuple(own[0]), tuple(own[1]), found.crs, tuple(keep), notes)


def _values(found: Layer, label_field: str | None, class_map: Mapping[str, str]) -> list[str]:
    name = label_field or next((f for f in USUAL_FIELDS if f in found.fields), None)
    if name is None:
        if EVERY_OTHER in class_map:
            return [EVERY_OTHER] * len(found.shapes)
        raise DataError(
            f"'{found.path}' has none of the fields {', '.join(USUAL_FIELDS)} (its fields: "
            f"{', '.join(found.fields) or 'none'}); name one with --label-field, or give all labels "
            "one class: --map '*=cacao_tree'"
        )
    values = found.values(name, "name one of them with --label-field")
    return ["" if v is None else str(v).strip() for v in values]


def _classes(found: Layer, values: Sequence[str], class_map: Mapping[str, str], classes: Sequence[str]) -> list[str]:
    known = [*dict.fromkeys(classes), IGNORED]
    for value, target in class_map.items():
        if target not in known:
            hint = did_you_mean(target, known) or f"; use one of {', '.join(known)}"
            raise DataError(f"--map sends '{value}' to '{target}', which is no class{hint}")
    unused = [v for v in class_map if v not in values and v != EVERY_OTHER]
    if unused:
        raise DataError(
            f"--map names '{unused[0]}', which no label of '{found.path}' has; its values are {_some(values)}"
        )
    own = {_plain(name): name for name in known} | {_plain(name).removesuffix("_tree"): name for name in known}
    meaning = {v: class_map.get(v) or own.get(_plain(v)) or class_map.get(EVERY_OTHER) for v in dict.fromkeys(values)}
    unknown = [v for v, target in meaning.items() if target is None]
    if unknown:
        lost = [v for v in values if meaning[v] is None]
        hint = did_you_mean(_plain(unknown[0]), own) or "; "
        example = f"--map '{unknown[0]}={known[0]}'"
        raise DataError(
            f"'{found.path}' has label values that are no class: {_some(lost)}{hint} classes: {', '.join(known)}; "
            f"map each, for example {example}, or all others: --map '*={IGNORED}'"
        )
    return [str(meaning[v]) for v in values]


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "_").replace("-", "_")


def _some(values: Sequence[str]) -> str:
    counts = Counter(values)
    shown = [f"'{v}'" if v else "(empty)" for v, _ in counts.most_common(LISTED)]
    return ", ".join(shown) + (f" and {len(counts) - LISTED} more" if len(counts) > LISTED else "")


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in kinds.items())


def _polygons(found: Layer) -> tuple[list[Any], list[str]]:
    """Polygon or multipolygon of each feature, None where it has none; and what was done, in words."""
    out: list[Any] = []
    counts: Counter[str] = Counter()
    for shape in found.shapes:
        if shape is None or shape.is_empty or shape.geom_type not in ("Polygon", "MultiPolygon", "GeometryCollection"):
            counts["label(s) without a polygon are left out"] += 1
            out.append(None)
            continue
        if not shape.is_valid:
            counts["invalid polygon(s) were mended"] += 1
        mended = only_polygons(shape if shape.is_valid else shapely.make_valid(shape))
        if mended is None:
            counts["polygon(s) without area are left out"] += 1
        elif mended.geom_type == "MultiPolygon":
            counts["label(s) of several parts are one crown each"] += 1
        out.append(mended)
    return out, [f"{n} {what}" for what, n in counts.items()]


def only_polygons(shape: shapely.Geometry) -> shapely.Geometry | None:
    """The polygons of a shape that has area, else None."""
    parts = [p for p in shapely.get_parts(shape) if p.geom_type in ("Polygon", "MultiPolygon") and p.area > 0]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def rectangles(shapes: Shapes) -> npt.NDArray[np.bool_]:
    """bool `[N]`: a shape of four corners that fills the upright box around it."""
    box = shapely.bounds(shapes)
    around = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    corners = shapely.get_num_coordinates(shapes) == 5
    return np.asarray(corners & (shapely.area(shapes) >= BOX_FILL * around))


def without_holes(shape: shapely.Geometry) -> list[shapely.Geometry]:
    """Polygons without holes that make up the shape: COCO's polygons have none, so it is cut through each hole."""
    out: list[shapely.Geometry] = []
    todo = list(shapely.get_parts(shape))
    while todo:
        polygon = todo.pop()
        if polygon.geom_type != "Polygon" or polygon.area == 0:
            continue
        if not polygon.interiors:
            out.append(polygon)
            continue
        middle = shapely.Polygon(polygon.interiors[0]).centroid.x
        x0, y0, x1, y1 = polygon.bounds
        for half in (shapely.box(x0 - 1, y0 - 1, middle, y1 + 1), shapely.box(middle, y0 - 1, x1 + 1, y1 + 1)):
            todo += list(shapely.get_parts(polygon.intersection(half)))
    return out
