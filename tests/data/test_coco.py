"""COCO files: what is understood, what is refused, and masks equal to the COCO library's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_data import CLASSES, crown, disc, rle
from faster_coco_eval.core import mask as coco_mask
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cabruca.data.classes import Meaning, class_meanings
from cabruca.data.coco import read_coco
from cabruca.data.masks import paint_polygons, paint_rle
from cabruca.errors import DataError

GOOD: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.tif", "height": 40, "width": 60}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [2, 3, 10, 10], "segmentation": [[2, 3, 12, 3, 12, 13]]}
    ],
    "categories": CLASSES,
}


def _write(folder: Path, content: Any) -> Path:
    path = folder / "truth.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _dense(crop: tuple[int, int, np.ndarray] | None, hw: tuple[int, int]) -> np.ndarray:
    out = np.zeros(hw, dtype=np.uint8)
    if crop is not None:
        x, y, bitmap = crop
        out[y : y + bitmap.shape[0], x : x + bitmap.shape[1]] = bitmap
    return out


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("images",), None, "'images' is missing"),
        (("annotations",), {}, "'annotations' is missing or is no list"),
        (("images", 0, "width"), None, "image 7 lacks 'width'"),
        (("images", 0, "width"), 0, "at least 1"),
        (("images", 0, "file_name"), 3, "must be a text"),
        (("images", 0, "gsd_m"), -1, "gsd_m -1"),
        (("annotations", 0, "image_id"), 8, "image_id 8, which no image has"),
        (("annotations", 0, "category_id"), 9, "category_id 9"),
        (("annotations", 0, "bbox"), [1, 2, 3], "bbox"),
        (("annotations", 0, "bbox"), [1, 2, 0, 4], "width and height above 0"),
        (("annotations", 0, "bbox"), [1, 2, float("nan"), 4], "bbox"),
        (("annotations", 0, "segmentation"), [[1, 2, 3, 4]], "3 or more"),
        (("annotations", 0, "segmentation"), {"size": [4, 4], "counts": [16]}, "they must be equal"),
        (("annotations", 0, "crown_diameter"), "wide", "crown_diameter 'wide'"),
    ],
)
def test_each_fault_is_named_in_one_line(tmp_path: Path, keys: tuple[Any, ...], value: Any, words: str) -> None:
    content = copy.deepcopy(GOOD)
    row: Any = content
    for key in keys[:-1]:
        row = row[key]
    if value is None:
        del row[keys[-1]]
    else:
        row[keys[-1]] = value
    with pytest.raises(DataError, match=words.replace("(", r"\(")) as error:
        read_coco(_write(tmp_path, content))
    assert "\n" not in str(error.value)
    read_coco(_write(tmp_path, GOOD))  # and the file without the fault is fine


def test_broken_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not valid JSON"):
        read_coco(_write(tmp_path, '{"images": ['))
    with pytest.raises(DataError, match="holds a list"):
        read_coco(_write(tmp_path, []))
    with pytest.raises(DataError, match="is not there"):
        read_coco(tmp_path / "no.json")


def test_an_rle_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(DataError, match="covers 15 px"):
        paint_rle([3, 4, 8], (4, 4), (4, 4))
    with pytest.raises(DataError, match="negative"):
        paint_rle([3, -4, 17], (4, 4), (4, 4))


INSTANCES, SEMANTICS = ("cacao_tree", "shade_tree"), ("background", "cacao_tree", "shade_tree", "understory")


def test_categories_become_crowns_painted_regions_or_nothing() -> None:
    names = {1: "cacao_tree", 2: "jaca", 3: "understory", 4: "rock"}
    found = class_meanings(names, {"jaca": "shade_tree", "rock": "ignore"}, INSTANCES, SEMANTICS, "x")
    assert found == {1: Meaning(1, 1), 2: Meaning(2, 2), 3: Meaning(0, 3), 4: None}


def test_unmapped_categories_are_all_listed_with_the_remedy() -> None:
    with pytest.raises(DataError, match="jaca, rock") as error:
        class_meanings({1: "jaca", 2: "rock", 3: "cacao_tree"}, {}, INSTANCES, SEMANTICS, "x.json")
    assert "data.category_map: {jaca: cacao_tree}" in str(error.value)
    assert "--map jaca=ignore" in str(error.value)
    with pytest.raises(DataError, match=r"example data\.category_map: \{Shade: shade_tree\} or --map Shade=ignore$"):
        class_meanings({1: "Shade"}, {"inga": "shade_tree"}, INSTANCES, SEMANTICS, "x.json")
    with pytest.raises(DataError, match=r"data\.category_map has 'INGA', which is no category; did you mean 'inga'"):
        class_meanings({1: "inga", 2: "jaca"}, {"INGA": "shade_tree"}, INSTANCES, SEMANTICS, "x.json")
    with pytest.raises(DataError, match="did you mean 'shade_tree'"):
        class_meanings({1: "jaca"}, {"jaca": "shadetree"}, INSTANCES, SEMANTICS, "x")


def test_box_only_by_annotation_by_file_and_by_absence(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    second = {**content["annotations"][0], "id": 2, "attributes": {"bbox_only": True}}
    third = {**content["annotations"][0], "id": 3, "segmentation": []}
    content["annotations"] += [second, third]
    coco = read_coco(_write(tmp_path, content))
    assert [a.outline is None for a in coco.images[0].annotations] == [False, True, True]
    assert not coco.box_annotated
    boxes = read_coco(_write(tmp_path, {**content, "info": {"annotation_type": "bbox"}}))
    assert boxes.box_annotated
    assert all(a.outline is None for a in boxes.images[0].annotations)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.integers(3, 40), st.booleans())
def test_run_lengths_are_cut_out_as_the_library_decodes_them(seed: int, h: int, w: int, compressed: bool) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((h, w), dtype=np.uint8)
    y, x = rng.integers(0, h), rng.integers(0, w)
    mask[y : y + 9, x : x + 9] = rng.random(mask[y : y + 9, x : x + 9].shape) < rng.random()
    code = coco_mask.encode(np.asfortranarray(mask))["counts"].decode() if compressed else rle(mask)["counts"]
    crop = paint_rle(code, (h, w), (h, w))
    np.testing.assert_array_equal(_dense(crop, (h, w)), mask)
    if crop is not None:  # and the crop is tight
        assert crop[2].any(0)[[0, -1]].all()
        assert crop[2].any(1)[[0, -1]].all()


def test_a_hole_stays_a_hole() -> None:
    ring = disc(60, 60, 30, 30, 20) & ~disc(60, 60, 30, 30, 8)
    np.testing.assert_array_equal(_dense(paint_rle(rle(ring)["counts"], (60, 60), (60, 60)), (60, 60)), ring)
    # a polygon with a hole as COCO tools write it: in along a cut, around the hole, out again
    outer, inner = [(5, 5), (45, 5), (45, 45), (5, 45), (5, 5)], [(15, 15), (15, 35), (35, 35), (35, 15), (15, 15)]
    painted = _dense(paint_polygons([np.array([*outer, *inner], dtype=float)], (60, 60), (1, 1)), (60, 60))
    assert painted[25, 25] == 0
    assert painted[10, 25] == painted[40, 25] == painted[25, 40] == 1
    assert painted.sum() == pytest.approx(40 * 40 - 20 * 20, rel=0.06)


@example(seed=19066)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_polygons_are_painted_as_the_library_paints_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.uniform(2, 58, (int(rng.integers(3, 9)), 2)) for _ in range(int(rng.integers(1, 4)))]
    whole = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([p.reshape(-1).tolist() for p in parts], 60, 60)))
    # painted in the polygon's own corner: a border point that lies on half a pixel may round the other way there
    differ = _dense(paint_polygons(parts, (60, 60), (1, 1)), (60, 60)) != whole
    assert differ.sum() <= len(parts)


def test_polygons_reaching_outside_are_clipped_and_scaled() -> None:
    square = np.array([[-10.0, -10], [20, -10], [20, 20], [-10, 20]])
    x, y, bitmap = paint_polygons([square], (60, 60), (1, 1)) or (0, 0, np.zeros((0, 0)))
    assert (x, y, bitmap.shape) == (0, 0, (20, 20))
    half = paint_polygons([square], (30, 30), (0.5, 0.5))
    assert half is not None
    assert half[2].shape == (10, 10)
    mask = disc(60, 60, 30, 30, 20)
    small = paint_rle(crown(mask)["segmentation"]["counts"], (60, 60), (30, 30))
    np.testing.assert_allclose(_dense(small, (30, 30)).sum(), mask.sum() / 4, rtol=0.04)
