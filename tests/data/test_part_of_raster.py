"""Pictures that are a window of a raster, with labelled ground: pixels, truth, draws, checks, overlaps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import SPEC
from drawn_data import CLASSES, box, crown, disc, write_raster
from rasterio.transform import from_origin

from cabruca.config.schema import AugmentationConfig, Config, DataConfig
from cabruca.data import raster
from cabruca.data.check import full_check
from cabruca.data.coco import read_coco
from cabruca.data.dataset import EvaluationWindows, TrainWindows
from cabruca.data.pictures import PictureSet
from cabruca.errors import DataError
from cabruca.structures import InputSpec

SIDE = 256
PROFILE = {"crs": "EPSG:31984", "transform": from_origin(478512.0, 8363720.0, 0.1, 0.1)}


def ramp() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.stack([columns, rows, np.full_like(rows, 7)]).astype(np.uint8)


def square(x0: float, y0: float, x1: float, y1: float) -> list[list[list[float]]]:
    return [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]


def part(window: tuple[int, int, int, int], labelled: Any = None, *, ident: int = 1, **more: Any) -> dict[str, Any]:
    row = {"id": ident, "file_name": "a.tif", "width": window[2], "height": window[3], "window": list(window),
           "raster_size": [SIDE, SIDE], **more}  # fmt: skip
    return row | ({} if labelled is None else {"labelled": labelled})


def written(folder: Path, images: list[dict[str, Any]], annotations: Any = (), name: str = "truth.json") -> Path:
    if not (folder / "a.tif").exists():
        write_raster(folder / "a.tif", ramp(), **PROFILE)
    content = {"images": images, "annotations": list(annotations), "categories": CLASSES}
    (folder / name).write_text(json.dumps(content))
    return folder / name


def plain(**changes: Any) -> InputSpec:
    return InputSpec.from_dict({**SPEC.to_dict(), "scale": 1.0, **changes})


def windows(folder: Path, file: Path, **changes: Any) -> EvaluationWindows:
    return EvaluationWindows(folder, file, plain(**changes), max_side_px=64, overlap=16, min_visible_share=0.3,
                             cache_mb=16)  # fmt: skip


def config(folder: Path, train: Path, val: Path | None = None, **data: Any) -> Config:
    own = {"train_dir": str(folder), "val_dir": str(folder), "train_annotations": str(train), "test_annotations": "",
           "val_annotations": str(val or train), "overlap": 16, "tile_size": 64, "scale": 1.0,
           "augmentation": AugmentationConfig(enabled=False)}  # fmt: skip
    return Config(data=DataConfig(**{**own, **data}))


@pytest.mark.parametrize("cache_mb", [0, 16])
def test_pixels_of_a_part_are_those_of_the_raster(tmp_path: Path, cache_mb: int) -> None:
    file = written(tmp_path, [part((40, 60, 100, 90)), part((0, 0, 50, 50), ident=2)])
    pictures = PictureSet(tmp_path, file, plain(), cache_mb=cache_mb)
    pixels, valid = pictures.pixels(0, (10, 20, 32, 32))
    assert pixels[0, 0].tolist() == list(range(50, 82))
    assert pixels[1, :, 0].tolist() == list(range(80, 112))
    assert valid.all()
    pixels, valid = pictures.pixels(0, (90, 0, 32, 8))  # ten columns lie in the part, the rest beyond it
    assert valid.sum() == 80
    assert (pixels[:, ~valid] == 0).all()
    assert pictures.pixels(1, (0, 0, 4, 4))[0][0, 0].tolist() == [0, 1, 2, 3]


def test_a_part_that_is_resampled_stays_in_its_place(tmp_path: Path) -> None:
    file = written(tmp_path, [part((40, 60, 100, 90))])
    pictures = PictureSet(tmp_path, file, plain(gsd_m=0.2), cache_mb=0)
    assert pictures.pictures[0].grid_hw == (45, 50)
    pixels, _ = pictures.pixels(0, (5, 5, 20, 20))
    assert pixels[0, 5].astype(float) == pytest.approx(40 + 2 * (np.arange(5, 25) + 0.5) - 0.5, abs=1)


def test_its_ground_is_that_of_the_raster(tmp_path: Path) -> None:
    found = windows(tmp_path, written(tmp_path, [part((40, 60, 60, 60))])).get(0)
    assert found.ground is not None
    corner = found.ground.to_plane(np.array([[0.0, 0.0]]))[0]
    assert corner == pytest.approx([478516.0, 8363714.0])


def test_outside_of_the_labelled_ground_pixels_are_seen_and_truth_is_unknown(tmp_path: Path) -> None:
    rows = [crown(disc(60, 60, 20, 30, 8))]
    sample = windows(tmp_path, written(tmp_path, [part((40, 60, 60, 60), [square(0, 0, 30, 60)])], rows)).get(0)
    assert sample.labelled is not None
    assert bool(sample.valid[:60, :60].all())
    assert bool(sample.labelled[:60, :30].all())
    assert not bool(sample.labelled[:, 30:].any())
    assert sample.semantic is not None
    assert bool((sample.semantic[:, 30:] == 255).all())
    assert sample.semantic[30, 20] == 1
    assert sample.semantic[5, 5] == 0
    assert float(sample.image[0, 10, 50]) == 90
    assert len(sample.crowns) == 1


def test_a_crown_mostly_on_unlabelled_ground_is_ignored(tmp_path: Path) -> None:
    rows = [box(24, 20, 20, 20)]
    sample = windows(tmp_path, written(tmp_path, [part((40, 60, 60, 60), [square(0, 0, 30, 60)])], rows)).get(0)
    assert len(sample.crowns) == 0
    assert len(sample.crowns.ignored) == 1


def test_windows_that_nobody_labelled_are_not_evaluated_and_hardly_drawn(tmp_path: Path) -> None:
    labelled = [square(0, 0, 60, 60), square(200, 200, 256, 256)]
    file = written(tmp_path, [part((0, 0, SIDE, SIDE), labelled)])
    own, whole = (
        windows(tmp_path, file),
        windows(tmp_path, written(tmp_path, [part((0, 0, SIDE, SIDE))], name="b.json")),
    )
    assert 2 <= len(own) < len(whole) == 25
    assert all(bool(own.get(i).labelled.any()) for i in range(len(own)) if own.get(i).labelled is not None)
    train = TrainWindows(config(tmp_path, file, windows_per_epoch=60), plain(tile_size=64))
    shares = [1.0 if s.labelled is None else float(s.labelled.float().mean())
              for s in (train.get(0, i) for i in range(60))]  # fmt: skip
    assert np.mean(np.array(shares) > 0.2) > 0.25  # one place in fifteen at random
    auto = TrainWindows(config(tmp_path, file), plain(tile_size=64))
    assert auto.num_samples() == 2  # 60^2 + 56^2 labelled px are 1.64 windows


def test_a_draw_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    file = written(tmp_path, [part((40, 60, 150, 150), [square(0, 0, 70, 150)])])
    first, second = (TrainWindows(config(tmp_path, file, augmentation=AugmentationConfig()), plain(tile_size=64))
                     for _ in range(2))  # fmt: skip
    second.get(0, 0)
    a, b = first.get(3, 1), second.get(3, 1)
    assert torch.equal(a.image, b.image)
    assert (a.labelled is None) == (b.labelled is None)
    assert a.labelled is None or torch.equal(a.labelled, b.labelled)


def test_labelled_ground_with_a_hole_follows_the_augmentation(tmp_path: Path) -> None:
    hole = [*square(0, 0, 200, 200), *square(50, 50, 110, 110)]
    file = written(tmp_path, [part((0, 0, SIDE, SIDE), [hole])])
    strong = AugmentationConfig(random_rotate=1.0, random_scale=1.0, rotate_degrees=45, brightness_contrast=0)
    train = TrainWindows(config(tmp_path, file, augmentation=strong), plain(tile_size=64))
    for i in range(12):
        sample = train.get(0, i)
        known = sample.valid if sample.labelled is None else sample.labelled
        x, y = sample.image[0] + 0.5, sample.image[1] + 0.5  # the ramp says which pixel is shown
        inside = (x < 200) & (y < 200) & ~((x > 50) & (x < 110) & (y > 50) & (y < 110))
        edge = torch.zeros_like(inside)
        for line in (50, 110, 200):
            edge |= ((x - line).abs() < 2) | ((y - line).abs() < 2)
        mixed = torch.nn.functional.max_pool2d((~sample.valid)[None].float(), 7, stride=1, padding=3)[0] > 0
        clear = ~mixed & ~edge
        assert torch.equal(known[clear], inside[clear])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"window": [0, 0, 50, 51]}, "window and picture must be of one size"),
        ({"window": [220, 0, 50, 50]}, "the window must lie inside the raster"),
        ({"window": [0, 0, 50.5, 50]}, "in whole pixels"),
        ({"window": [0, 0, 50, 50], "raster_size": None}, "in whole pixels"),
        ({"labelled": [[[1, 2]]]}, "is no list of polygons"),
        ({"labelled": 3}, "is no list of polygons"),
        ({"labelled": []}, "covers none of the picture"),
        ({"labelled": [square(60, 60, 80, 80)]}, "covers none of the picture"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    file = written(tmp_path, [{**part((0, 0, 50, 50)), **row}])
    with pytest.raises(DataError, match=text):
        read_coco(file)


def test_a_raster_of_another_size_than_was_prepared_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, [{**part((0, 0, 50, 50)), "raster_size": [300, 300]}])
    errors = full_check(config(tmp_path, file)).errors
    assert any("is 256 x 256 px and the annotation file says 300 x 300" in e for e in errors)


def test_a_mask_of_a_part_lies_beside_the_coco_file(tmp_path: Path) -> None:
    ids = np.zeros((1, SIDE, SIDE), np.uint8)
    ids[0, 70:80, 50:60] = 2
    write_raster(tmp_path / "out" / "cover.tif", ids)
    written(tmp_path, [])
    file = written(tmp_path, [part((40, 60, 60, 60), semantic_mask="cover.tif")], name="out/truth.json")
    sample = windows(tmp_path, file).get(0)
    assert sample.semantic is not None
    assert bool((sample.semantic[10:20, 10:20] == 2).all())
    assert int((sample.semantic == 2).sum()) == 100
    assert full_check(config(tmp_path, file)).errors != []  # train and val are the same ground
    ids[0, 70, 50] = 9
    write_raster(tmp_path / "out" / "cover.tif", ids)
    assert any("holds [9]" in e for e in full_check(config(tmp_path, file)).errors)
    write_raster(tmp_path / "out" / "cover.tif", ids[:, :100])
    with pytest.raises(DataError, match="they must be equal"):
        windows(tmp_path, file).get(0)


def overlaps(folder: Path, train: list[dict[str, Any]], val: list[dict[str, Any]], *rows: Any) -> list[str]:
    a, b = written(folder, train, rows[:1], "t.json"), written(folder, val, rows[1:], "v.json")
    return [e for e in full_check(config(folder, a, b)).errors if "share" in e or "also crowns" in e or "is the" in e]


def test_windows_of_one_raster_that_share_labelled_ground_are_an_error(tmp_path: Path) -> None:
    first, second = part((0, 0, 128, 128)), part((100, 0, 128, 128))
    (line,) = overlaps(tmp_path, [first], [second])
    assert "val picture 'a.tif' (window [100, 0, 128, 128]) shares 22% of its ground with the train picture" in line


def test_context_without_labels_is_no_shared_ground(tmp_path: Path) -> None:
    first = part((0, 0, 128, 128), [square(0, 0, 110, 128)])
    second = part((100, 0, 128, 128), [square(10, 0, 128, 128)])
    assert overlaps(tmp_path, [first], [second]) == []


def test_a_crown_that_two_sets_count_is_a_leak(tmp_path: Path) -> None:
    first = part((0, 0, 128, 128), [square(0, 0, 110, 128)])
    second = part((100, 0, 128, 128), [square(10, 0, 128, 128)])
    (line,) = overlaps(tmp_path, [first], [second], box(100, 40, 22, 20), box(0, 40, 22, 20))
    assert line == "1 crown(s) of val are also crowns of train; give each crown to one set"
    crowd = {**box(0, 40, 22, 20), "iscrowd": 1}
    assert overlaps(tmp_path, [first], [second], box(100, 40, 22, 20), crowd) == []


def test_a_whole_picture_and_a_window_of_it_are_the_same(tmp_path: Path) -> None:
    whole = {"id": 1, "file_name": "a.tif", "width": SIDE, "height": SIDE}
    lines = overlaps(tmp_path, [whole], [part((0, 0, 128, 128))])
    assert any("is the train picture 'a.tif'" in line for line in lines)
    assert any("shares 100% of its ground" in line for line in lines)


def test_the_test_set_is_looked_at_too(tmp_path: Path) -> None:
    train, val = written(tmp_path, [part((0, 0, 64, 64))]), written(tmp_path, [part((64, 0, 64, 64))], name="v.json")
    test = written(tmp_path, [part((32, 0, 64, 64))], name="x.json")
    own = config(tmp_path, train, val, test_dir=str(tmp_path), test_annotations=str(test))
    lines = [e for e in full_check(own).errors if "shares" in e]
    assert len(lines) == 2
    assert all(line.startswith("test picture") for line in lines)


def test_share_maps_of_an_area(tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, 128:] = 255
    path = write_raster(tmp_path / "m.tif", ramp(), mask=mask, **PROFILE)
    assert raster.valid_share_map(path).mean() == 0.5
    assert raster.valid_share_map(path, area=(128, 0, 64, 64)).mean() == 1.0
    assert raster.valid_share_map(path, area=(0, 0, 128, 64)).mean() == 0.0
