"""Truth of windows by closed form: areas, diameters, density, what is clipped, what is unknown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from drawn_data import DataSet, box, crown, disc, write_raster

from cabruca.data.dataset import EvaluationWindows, input_spec
from cabruca.data.targets import density_map
from cabruca.errors import DataError
from cabruca.structures import IGNORE, Sample

GREY = np.full((3, 256, 256), 90, dtype=np.uint8)


def _whole(data_set: DataSet, annotations: list[dict[str, Any]], *, side: int = 1024, **more: Any) -> list[Sample]:
    config = data_set.config(annotations, **more)
    windows = EvaluationWindows(
        data_set.folder,
        config.data.val_annotations,
        input_spec(config),
        max_side_px=side,
        overlap=32,
        min_visible_share=0.3,
        cache_mb=16,
    )
    return [windows.get(i) for i in range(len(windows))]


def test_circles_have_the_area_diameter_and_density_of_circles(data_set: DataSet) -> None:
    data_set.picture(GREY)
    masks = [disc(256, 256, 64, 64, 28), disc(256, 256, 180, 150, 40)]
    (sample,) = _whole(data_set, [crown(m, ident=i, category=i + 1) for i, m in enumerate(masks)])
    assert sample.crowns.labels.tolist() == [2, 1]  # larger first
    np.testing.assert_allclose(sample.crowns.masks.areas_px(), [math.pi * 1600, math.pi * 784], rtol=0.005)
    np.testing.assert_allclose(sample.crowns.diameter_px, [80, 56], rtol=0.003)
    np.testing.assert_allclose(sample.crowns.boxes_xyxy_px, [[140, 110, 220, 190], [36, 36, 92, 92]], atol=0.6)
    assert sample.semantic is not None
    assert sample.density is not None
    assert set(sample.semantic.unique().tolist()) == {0, 1, 2}
    assert float(sample.density.sum()) * 1024 == pytest.approx(math.pi * (1600 + 784), rel=0.005)
    # the small circle's centre is a corner of four cells: each holds a quarter of it
    np.testing.assert_allclose(sample.density[1:3, 1:3], math.pi * 784 / 4 / 1024, rtol=0.01)


def test_density_counts_known_pixels_and_is_unknown_where_few_are() -> None:
    semantic = torch.zeros(32, 96, dtype=torch.uint8)
    semantic[:8, :32] = 1  # a quarter of the first cell
    semantic[:, 32:64] = IGNORE
    semantic[:16, 32:64] = 2  # all that is known of the second, and just half of it is
    semantic[:, 64:] = IGNORE
    semantic[:15, 64:] = 2
    assert density_map(semantic, [1, 2]).tolist() == [[0.25, 1.0, -1.0]]


def test_annotated_diameters_are_metres_where_the_gsd_is_known(data_set: DataSet, utm: Any) -> None:
    data_set.picture(GREY, "known.tif", profile=utm(0.05))
    data_set.picture(GREY, "unknown.tif")
    mask = disc(256, 256, 100, 100, 20)
    rows = [crown(mask, ident=i, image=i, crown_diameter=3.0) for i in (1, 2)]
    known, unknown = _whole(data_set, rows)
    assert known.gsd_m == pytest.approx(0.05)
    assert float(known.crowns.diameter_px[0]) == pytest.approx(60.0)
    assert unknown.gsd_m is None
    assert float(unknown.crowns.diameter_px[0]) == 3.0


def test_a_box_teaches_its_box_and_nothing_else(data_set: DataSet) -> None:
    data_set.picture(GREY)
    (sample,) = _whole(data_set, [box(10, 20, 30, 50)])
    assert sample.semantic is None
    assert sample.density is None
    assert sample.crown_diameter_px is None
    assert not sample.crowns.masks.has_mask.any()
    assert sample.crowns.diameter_px.tolist() == [40.0]
    assert sample.crowns.boxes_xyxy_px.tolist() == [[10, 20, 40, 70]]


def test_a_set_annotated_by_boxes_has_no_semantic_truth_even_on_empty_pictures(data_set: DataSet) -> None:
    data_set.picture(GREY, "a.tif")
    data_set.picture(GREY, "b.tif")
    mask = disc(256, 256, 100, 100, 20)
    boxes = _whole(data_set, [crown(mask)], info={"annotation_type": "bbox"})
    assert [s.semantic for s in boxes] == [None, None]
    with_mask, empty = _whole(data_set, [crown(mask)])
    assert with_mask.semantic is not None
    assert empty.semantic is not None
    assert not empty.semantic.any()


def test_boxes_crowds_and_ignored_categories_are_unknown_in_painted_truth(data_set: DataSet) -> None:
    data_set.picture(GREY)
    crowd, ignored = disc(256, 256, 200, 60, 20), disc(256, 256, 200, 200, 20)
    rows = [
        crown(disc(256, 256, 60, 60, 20)),
        box(50, 150, 40, 30, ident=2),
        {**crown(crowd, ident=3), "iscrowd": 1},
        crown(ignored, ident=4, category=3),
    ]
    (sample,) = _whole(data_set, rows, category_map={"understory": "ignore"})
    assert sample.semantic is not None
    unknown = crowd | ignored
    unknown[150:180, 50:90] = True
    np.testing.assert_array_equal(sample.semantic.numpy() == IGNORE, unknown)
    assert len(sample.crowns) == 2  # the masked crown and the box; no crowd, nothing ignored
    assert sorted(sample.crowns.masks.has_mask.tolist()) == [False, True]


def test_small_crowns_lie_over_large_ones_and_regions(data_set: DataSet) -> None:
    data_set.picture(GREY)
    small, large, region = disc(256, 256, 120, 120, 12), disc(256, 256, 120, 120, 40), disc(256, 256, 120, 120, 90)
    rows = [crown(small), crown(large, ident=2, category=2), crown(region, ident=3, category=3)]
    for order in (rows, rows[::-1]):
        (sample,) = _whole(data_set, order)
        assert sample.semantic is not None
        expected = np.select([small, large, region], [1, 2, 3], 0)
        np.testing.assert_array_equal(sample.semantic, expected)
        assert sorted(sample.crowns.labels.tolist()) == [1, 2]  # a region is no crown
        assert sample.crown_diameter_px is not None
        assert float(sample.crown_diameter_px[30, 30]) == pytest.approx(24, rel=0.02)


def test_nodata_is_unknown_and_filled_with_the_mean(data_set: DataSet) -> None:
    picture = GREY.copy()
    picture[:, :, 200:] = 0
    data_set.picture(picture, profile={"nodata": 0})
    (sample,) = _whole(data_set, [crown(disc(256, 256, 60, 60, 20))], mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    assert sample.semantic is not None
    assert sample.density is not None
    assert not sample.valid[:, 200:].any()
    assert sample.valid[:, :200].all()
    assert (sample.semantic[:, 200:] == IGNORE).all()
    assert not (sample.semantic[:, :200] == IGNORE).any()
    assert (sample.density[:, 7] == -1).all()
    assert (sample.density[:, 6] == -1).all()  # 8 of 32 columns are known
    np.testing.assert_allclose(sample.image[:, 5, 230], [0.1, 0.2, 0.3], rtol=1e-6)


def test_semantic_rasters_are_used_as_they_are_and_checked(data_set: DataSet) -> None:
    ids = np.random.default_rng(0).integers(0, 6, (1, 256, 256)).astype(np.uint8)
    ids[0, 0, :9] = 255
    write_raster(data_set.folder / "ids.png", ids)
    data_set.picture(GREY, semantic_mask="ids.png")
    (sample,) = _whole(data_set, [box(5, 5, 20, 20)])
    np.testing.assert_array_equal(sample.semantic, ids[0])
    write_raster(data_set.folder / "ids.png", ids + (ids == 3) * np.uint8(4))
    with pytest.raises(DataError, match="holds id 7 and there are 6 classes"):
        _whole(data_set, [])
    write_raster(data_set.folder / "ids.png", ids[:, :100])
    with pytest.raises(DataError, match="must be equal"):
        _whole(data_set, [])


def test_grid_windows_clip_their_truth_and_count_each_crown_centre_once(data_set: DataSet) -> None:
    data_set.picture(np.full((3, 250, 300), 80, dtype=np.uint8))
    rng = np.random.default_rng(1)
    places = [(float(x), float(y)) for x, y in rng.uniform(8, 240, (40, 2))]
    rows = [crown(disc(250, 300, x, y, 7), ident=i + 1) for i, (x, y) in enumerate(places)]
    (whole,) = _whole(data_set, rows)
    parts = _whole(data_set, rows, side=128)
    assert len(parts) > 4
    seen = np.zeros((250, 300), dtype=int)
    centres = []
    for part in parts:
        _, y, x = (int(v) for v in part.picture.split(":"))
        x0, y0, x1, y1 = part.core_xyxy_px
        seen[y + y0 : y + y1, x + x0 : x + x1] += 1
        h, w = part.size_hw_px
        assert part.semantic is not None
        assert whole.semantic is not None
        torch.testing.assert_close(part.semantic[:h, :w], whole.semantic[y : y + h, x : x + w])
        torch.testing.assert_close(part.image[:, :h, :w], whole.image[:, y : y + h, x : x + w])
        b = part.crowns.boxes_xyxy_px
        assert float(b.min()) >= 0
        assert bool((b <= torch.tensor([w, h, w, h])).all())
        union = part.crowns.masks.dense(*part.semantic.shape).amax(0)
        assert not (union > (part.semantic == 1)).any()
        middle = (b[:, :2] + b[:, 2:]) / 2
        core = (middle >= torch.tensor([x0, y0])).all(1) & (middle < torch.tensor([x1, y1])).all(1)
        centres += [(cx + x, cy + y) for cx, cy in middle[core].tolist()]
    assert (seen == 1).all()
    assert len(centres) == len(places)
    assert len(whole.crowns) == 40


def test_a_crown_cut_by_the_window_is_kept_while_enough_of_it_is_left(data_set: DataSet) -> None:
    """The window of 128 px ends at x = 128: crowns of radius 10 with their centre before, on and after that line."""
    data_set.picture(np.full((3, 128, 200), 80, dtype=np.uint8))
    masks = [disc(128, 200, x, y, 10) for x, y in ((123.0, 20.0), (128.0, 50.0), (133.0, 80.0), (137.0, 110.0))]
    rows = [crown(m, ident=i + 1) for i, m in enumerate(masks)]
    rows += [box(120, 118, 20, 4, ident=5), box(126, 124, 20, 3, ident=6)]
    first = _whole(data_set, rows, side=128)[0]
    assert first.picture == "1:0:0"
    shares = [m[:, :128].sum() / m.sum() for m in masks]
    assert [s > 0.3 for s in shares] == [True, True, False, False]
    kept = sorted(int(b[1]) for b in first.crowns.boxes_xyxy_px)
    assert kept == [10, 40, 118]  # two discs; the box of which 0.4 is left, not that of which 0.1 is
    areas = sorted(first.crowns.masks.areas_px().tolist())
    assert areas == sorted([0, int(masks[1][:, :128].sum()), int(masks[0][:, :128].sum())])
    assert float(first.crowns.boxes_xyxy_px[:, 2].max()) == 128
    # a clipped crown keeps the diameter of the whole one
    masked = first.crowns.masks.has_mask
    np.testing.assert_allclose(first.crowns.diameter_px[masked], 20, rtol=0.02)
