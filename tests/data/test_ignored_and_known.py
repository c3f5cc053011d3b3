"""Crowds, ignored categories and NoData in the truth of a window; pixel types; the budget of painted bitmaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_data import DataSet, box, crown, disc

from cabruca.config.schema import AugmentationConfig, Config, ValidationConfig
from cabruca.data.check import full_check, quick_check
from cabruca.data.coco import Annotation, Image, read_coco
from cabruca.data.crowns import CropCache, CrownTable
from cabruca.data.dataset import EvaluationWindows, TrainWindows, input_spec
from cabruca.data.loaders import evaluation_batches
from cabruca.errors import DataError
from cabruca.runtime import Runtime

GREY = np.full((3, 256, 256), 90, dtype=np.uint8)


def windows(data_set: DataSet, config: Config, *, side: int = 1024) -> EvaluationWindows:
    return EvaluationWindows(
        data_set.folder,
        config.data.val_annotations,
        input_spec(config),
        max_side_px=side,
        overlap=32,
        min_visible_share=0.3,
        cache_mb=16,
    )


def crowded(data_set: DataSet) -> Config:
    """A crown, a crowd of cacao, an ignored category with a mask, and one by a box."""
    data_set.picture(GREY)
    rows = [
        crown(disc(256, 256, 60, 60, 20)),
        {**crown(disc(256, 256, 200, 60, 30), ident=2), "iscrowd": 1},
        crown(disc(256, 256, 200, 200, 20), ident=3, category=3),
        box(50, 180, 40, 30, ident=4, category=3),
    ]
    return data_set.config(rows, category_map={"understory": "ignore"})


def test_crowds_and_ignored_categories_are_regions(data_set: DataSet) -> None:
    sample = windows(data_set, crowded(data_set)).get(0)
    assert len(sample.crowns) == 1
    found = sample.crowns.ignored
    by_label = sorted(zip(found.labels.tolist(), found.boxes_xyxy_px.tolist(), strict=True))
    assert by_label == [
        (0, [50.0, 180.0, 90.0, 210.0]),
        (0, [180.0, 180.0, 220.0, 220.0]),
        (1, [170.0, 30.0, 230.0, 90.0]),
    ]
    assert sorted(found.masks.areas_px().tolist()) == [0, pytest.approx(1257, rel=0.01), pytest.approx(2827, rel=0.01)]
    assert torch.equal(sample.crowns.ignore_xyxy_px, found.boxes_xyxy_px)


def test_regions_follow_window_and_loader_processes(data_set: DataSet) -> None:
    config = crowded(data_set)
    parts = windows(data_set, config, side=160)
    last = parts.get(len(parts) - 1)
    x, y = (int(v) for v in last.picture.split(":")[:0:-1])
    expected = {(180.0 - x, 180.0 - y, 220.0 - x, 220.0 - y)}
    assert expected <= {tuple(b) for b in last.crowns.ignore_xyxy_px.tolist()}
    assert float(last.crowns.ignore_xyxy_px.min()) >= 0
    indices = list(range(len(parts)))
    alone = list(evaluation_batches(parts, indices, Runtime.single(), batch_size=2))
    helped = list(evaluation_batches(parts, indices, Runtime.single(loaders=1), batch_size=2))
    for a, b in zip(alone, helped, strict=True):
        for c, d in zip(a.crowns, b.crowns, strict=True):
            torch.testing.assert_close(c.centre_xy_px, d.centre_xy_px, rtol=0, atol=0)
            torch.testing.assert_close(c.diameter_px, d.diameter_px, rtol=0, atol=0)
            for field in ("boxes_xyxy_px", "labels"):
                assert torch.equal(getattr(c, field), getattr(d, field))
                assert torch.equal(getattr(c.ignored, field), getattr(d.ignored, field))
            assert torch.equal(c.ignored.masks.pixels, d.ignored.masks.pixels)
            assert torch.equal(c.masks.rect_xywh_px, d.masks.rect_xywh_px)
    assert any(len(c.ignored) for b in alone for c in b.crowns)


@pytest.mark.parametrize("training", [False, True])
def test_crowns_on_nodata_are_neither_truth_nor_background(data_set: DataSet, training: bool) -> None:
    """Known is x < 200: crowns that show 0, 0.4, 0.6 and all of their box there."""
    picture = GREY.copy()
    picture[:, :, 200:] = 0
    data_set.picture(picture, profile={"nodata": 0})
    rows = [box(x, 20 + 50 * i, 20, 20, ident=i + 1) for i, x in enumerate((220, 192, 188, 100))]
    config = data_set.config(rows, tile_size=256, augmentation=AugmentationConfig(enabled=False))
    sample = TrainWindows(config, input_spec(config)).get(0, 0) if training else windows(data_set, config).get(0)
    assert sorted(sample.crowns.boxes_xyxy_px[:, 0].tolist()) == [100, 188]
    assert sorted(sample.crowns.ignore_xyxy_px[:, 0].tolist()) == [192, 220]
    assert sample.crowns.ignored.labels.tolist() == [1, 1]


def test_the_diameter_of_a_crown_is_unknown_on_nodata(data_set: DataSet) -> None:
    picture = GREY.copy()
    picture[:, :, 120:] = 0
    data_set.picture(picture, profile={"nodata": 0})
    sample = windows(data_set, data_set.config([crown(disc(256, 256, 110, 60, 24))])).get(0)
    found = sample.crown_diameter_px
    assert found is not None
    assert bool((found[:, 30:] == 0).all())
    assert float(found[15, 29]) == pytest.approx(48, rel=0.02)


def test_another_pixel_type_is_refused_unless_the_scale_was_given(tmp_path: Path) -> None:
    narrow, wide = DataSet(tmp_path / "narrow"), DataSet(tmp_path / "wide")
    narrow.picture(GREY)
    wide.picture(GREY.astype(np.uint16) * 257)
    own, other = narrow.config([box(5, 5, 9, 9)]), wide.config([box(5, 5, 9, 9)])
    spec = input_spec(own)
    assert (spec.scale, spec.dtype) == (255.0, "uint8")
    assert type(spec).from_dict(spec.to_dict()) == spec
    both = own.model_copy(
        update={
            "data": own.data.model_copy(
                update={"val_dir": other.data.val_dir, "val_annotations": other.data.val_annotations}
            )
        }
    )
    for fails in (lambda: windows_of(other, spec).get(0), lambda: quick_check(both)):
        with pytest.raises(DataError, match=r"uint16 pixels.*data\.scale") as error:
            fails()
        assert "\n" not in str(error.value)
    assert any("uint16" in e for e in full_check(both).errors)
    given = both.model_copy(update={"data": both.data.model_copy(update={"scale": 255.0})})
    assert input_spec(given).dtype is None
    quick_check(given)
    assert float(windows_of(other, input_spec(given)).get(0).image.max()) == pytest.approx(90 * 257 / 255)
    early = {k: v for k, v in spec.to_dict().items() if k != "dtype"}
    assert type(spec).from_dict(early).dtype is None, "checkpoints of before say nothing of it"


def windows_of(config: Config, spec: Any) -> EvaluationWindows:
    return EvaluationWindows(
        config.data.val_dir,
        config.data.val_annotations,
        spec,
        max_side_px=1024,
        overlap=32,
        min_visible_share=0.3,
        cache_mb=16,
    )


def painted_table(crops: CropCache, number: int, count: int) -> CrownTable:
    side = 64
    square = (np.array([[0.0, 0], [side, 0], [side, side], [0, side]]),)
    rows = tuple(Annotation(k, 1, (0.0, 0.0, side, side), square, None, False) for k in range(count))
    image = Image(number, "a.tif", side, side, None, None, None, rows)
    return CrownTable(image, {1: None}, (side, side), None, crops=crops, number=number)


def test_all_tables_of_a_set_share_one_budget_of_bitmaps() -> None:
    limit = 20 * 64 * 64
    crops = CropCache(limit)
    tables = [painted_table(crops, n, 8) for n in range(10)]
    for table in tables:
        for i in range(8):
            crop = table.crop(i)
            assert crop is not None
            assert crop[2].sum() == 64 * 64
            assert crops.held_bytes <= limit
    assert (9, 7) in crops
    assert (0, 0) not in crops
    assert tables[0].area_px(0) == 64 * 64, "what was dropped is painted again"


@pytest.mark.parametrize(
    ("said", "only_box"),
    [
        (True, True),
        ("true", True),
        ("1", True),
        (1, True),
        (False, False),
        ("false", False),
        ("0", False),
        (None, False),
    ],
)
def test_a_text_is_not_true_because_it_is_a_text(data_set: DataSet, said: Any, only_box: bool) -> None:
    data_set.picture(GREY)
    row = crown(disc(256, 256, 60, 60, 20), attributes={"bbox_only": said}) | {"iscrowd": said}
    config = data_set.config([row])
    (annotation,) = read_coco(config.data.train_annotations).images[0].annotations
    assert (annotation.outline is None) == only_box
    assert annotation.crowd == only_box


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"attributes": {"bbox_only": "perhaps"}}, "must be true or false"),
        ({"segmentation": {"size": [256, 256], "counts": [1.5, 256 * 256 - 1.5]}}, "not all whole numbers"),
        ({"segmentation": {"size": [256, 256], "counts": ["9", 256 * 256 - 9]}}, "not all whole numbers"),
        ({"segmentation": {"size": [256, 256], "counts": [None]}}, "not all whole numbers"),
    ],
)
def test_flags_and_runs_that_are_neither_are_named(data_set: DataSet, change: dict[str, Any], told: str) -> None:
    data_set.picture(GREY)
    config = data_set.config([crown(disc(256, 256, 60, 60, 20)) | change])
    with pytest.raises(DataError, match=told) as error:
        read_coco(config.data.train_annotations)
    assert "\n" not in str(error.value)
    assert "annotation 1" in str(error.value)


def test_crowns_larger_than_the_overlap_are_named_where_a_grid_cuts_them(data_set: DataSet) -> None:
    data_set.picture(GREY)
    config = data_set.config([crown(disc(256, 256, 60, 60, 20)), box(100, 100, 30, 60, ident=2)])
    config = config.model_copy(update={"data": config.data.model_copy(update={"overlap": 45})})

    def warned(side: int, overlap: int) -> list[str]:
        data = config.data.model_copy(update={"overlap": overlap})
        own = config.model_copy(update={"data": data, "validation": ValidationConfig(max_side_px=side)})
        return [w for w in full_check(own).warnings if "data.overlap" in w]

    (said,) = warned(128, 45)
    assert "1 crown(s)" in said
    assert "largest 60" in said
    assert warned(128, 60) == []
    assert warned(256, 45) == []
