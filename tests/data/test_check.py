"""Each thing that the data check promises to find, put into a set that is otherwise fine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_data import CLASSES, crown, disc, write_raster
from rasterio.transform import from_origin

from cabruca.config.schema import Config, DataConfig, ValidationConfig
from cabruca.data.check import full_check, quick_check
from cabruca.errors import DataError


class Pair:
    """A train and a val set of two pictures each that pass; tests spoil one thing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        self.content: dict[str, Any] = {}
        for part in ("train", "val"):
            images = []
            for k in (1, 2):
                write_raster(folder / part / f"{k}.png", rng.integers(0, 255, (3, 96, 96)).astype(np.uint8))
                images.append({"id": k, "file_name": f"{k}.png", "height": 96, "width": 96})
            rows = [
                crown(disc(96, 96, 30 + 9 * i, 40, 8), ident=i, image=i % 2 + 1, category=i % 2 + 1) for i in range(4)
            ]
            self.content[part] = {"images": images, "annotations": rows, "categories": list(CLASSES)}

    def config(self, **data: Any) -> Config:
        for part, content in self.content.items():
            (self.folder / f"{part}.json").write_text(json.dumps(content))
        return Config(
            data=DataConfig(
                train_dir=str(self.folder / "train"),
                val_dir=str(self.folder / "val"),
                train_annotations=str(self.folder / "train.json"),
                val_annotations=str(self.folder / "val.json"),
                **data,
            ),
            validation=ValidationConfig(max_detections=5),
        )


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_a_good_pair_has_facts_only(pair: Pair) -> None:
    report = full_check(pair.config())
    assert report.ok
    assert report.warnings == []
    assert report.facts == [
        "train: 2 picture(s), 2 cacao_tree, 2 shade_tree (masks), 0 semantic mask(s)",
        "val: 2 picture(s), 2 cacao_tree, 2 shade_tree (masks), 0 semantic mask(s)",
    ]
    assert [f.level for f in quick_check(pair.config())] == ["fact", "fact"]
    assert str(report).endswith("0 error(s), 0 warning(s)")


def test_a_missing_file_a_wrong_size_and_missing_bands_are_errors(pair: Pair) -> None:
    (pair.folder / "train/2.png").unlink()
    write_raster(pair.folder / "val/1.png", np.ones((3, 90, 96), dtype=np.uint8))
    write_raster(pair.folder / "val/2.png", np.ones((1, 96, 96), dtype=np.uint8))
    errors = full_check(pair.config()).errors
    assert len(errors) == 3
    assert "'2.png' is not a file" in errors[0]
    assert "96 x 90 px and the annotation file says 96 x 96" in errors[1]
    assert "has 1 band(s)" in errors[2]
    with pytest.raises(DataError, match="is not a file"):
        quick_check(pair.config())


def test_unmapped_categories_and_broken_files_are_errors(pair: Pair) -> None:
    pair.content["train"]["categories"].append({"id": 9, "name": "jaca"})
    del pair.content["val"]["images"][0]["width"]
    errors = full_check(pair.config()).errors
    assert "without a class: jaca" in errors[0]
    assert "image 1 lacks 'width'" in errors[1]
    with pytest.raises(DataError, match="jaca"):
        quick_check(pair.config())
    assert len(full_check(pair.config(category_map={"jaca": "shade_tree"})).errors) == 1


def test_boxes_outside_empty_pictures_rare_classes_and_crowds_are_warnings(pair: Pair) -> None:
    train = pair.content["train"]
    train["annotations"] = [crown(disc(96, 96, 30, 30, 5), ident=i, image=1) for i in range(150)]
    train["annotations"].append(crown(disc(96, 96, 60, 60, 5), ident=150, image=1, category=2))
    train["annotations"][0]["bbox"] = [80, 80, 40, 5]
    warnings = full_check(pair.config()).warnings
    assert len(warnings) == 4
    assert "'shade_tree' is 1 of 151 crowns" in warnings[0]
    assert "1 box(es) reach outside" in warnings[1]
    assert "1 picture(s) without any annotation (2.png)" in warnings[2]
    assert "151 crowns on one tile of 512 px (1.png) and validation.max_detections is 5; raise it to 188" in warnings[3]


def test_a_key_of_the_map_that_is_no_category_is_a_warning_with_what_may_be_meant(pair: Pair) -> None:
    """Only where all sets were read: it may be a category of the one that was not."""
    pair.content["val"]["categories"].append({"id": 9, "name": "jaca"})
    maps = {"jaca": "shade_tree", "Shade-tree": "cacao_tree", "palm": "ignore"}
    assert [w for w in full_check(pair.config(category_map=maps)).warnings if "category_map" in w] == [
        "data.category_map names 'Shade-tree', which is no category of train, val; did you mean 'shade_tree'?",
        "data.category_map names 'palm', which is no category of train, val; the categories are cacao_tree, jaca, "
        "shade_tree, understory",
    ]
    del pair.content["val"]["images"][0]["width"]
    assert full_check(pair.config(category_map=maps)).warnings == []


@pytest.mark.parametrize("heads", [("instance", "semantic"), ("semantic",)])
def test_a_class_without_a_crown_in_training_is_a_warning_of_both_halves(pair: Pair, heads: tuple[str, ...]) -> None:
    """A group is no example; what validation lacks is no matter."""
    rows = pair.content["train"]["annotations"]
    rows[1]["iscrowd"], rows[3]["category_id"] = 1, 1
    pair.content["val"]["annotations"] = rows[:1]
    config = pair.config()
    config = config.model_copy(update={"model": config.model.model_copy(update={"heads": heads})})
    told = [
        "train: no crown of 'shade_tree' to learn from, so what the network says of it is a guess; add examples, or "
        "leave the class out (model.num_instance_classes, model.instance_class_names)"
    ]
    expected = told if "instance" in heads else []
    assert [str(f) for f in quick_check(config) if f.level == "warning"] == expected
    assert [w for w in full_check(config).warnings if "to learn from" in w] == expected


def test_semantic_ids_that_are_no_class_are_errors(pair: Pair) -> None:
    ids = np.zeros((1, 96, 96), dtype=np.uint8)
    ids[0, :5, :5], ids[0, 9, 9] = 255, 8
    write_raster(pair.folder / "val/ids.png", ids)
    pair.content["val"]["images"][1]["semantic_mask"] = "ids.png"
    (error,) = full_check(pair.config()).errors
    assert "holds [8] and the classes are 0 to 5" in error


def test_the_same_picture_in_both_halves_is_an_error(pair: Pair) -> None:
    shutil.copy(pair.folder / "train/1.png", pair.folder / "val/2.png")
    (error,) = full_check(pair.config()).errors
    assert "val picture '2.png' is the train picture '1.png'" in error


@pytest.mark.parametrize(("shift_m", "found"), [(0.0, True), (5.0, True), (9.6, False), (30.0, False)])
def test_the_same_ground_in_both_halves_is_an_error(pair: Pair, shift_m: float, found: bool) -> None:
    """Pictures of 9.6 m; neighbours that touch are fine."""
    rng = np.random.default_rng(1)
    for part, shift in (("train", 0.0), ("val", shift_m)):
        place = {"crs": "EPSG:31984", "transform": from_origin(478512.0 + shift, 8363720.0, 0.1, 0.1)}
        write_raster(pair.folder / part / "g.tif", rng.integers(0, 255, (3, 96, 96)).astype(np.uint8), **place)
        pair.content[part]["images"][0]["file_name"] = "g.tif"
    errors = full_check(pair.config()).errors
    assert bool(errors) == found
    assert all(("shares" in e and "of its ground" in e) or "are also crowns of train" in e for e in errors)


def test_the_same_place_of_a_mosaic_is_an_error(pair: Pair) -> None:
    pair.content["train"]["images"][0].update(mosaic_x=0, mosaic_y=0)
    pair.content["val"]["images"][0].update(mosaic_x=48, mosaic_y=0)
    (error,) = full_check(pair.config()).errors
    assert "shares 50% of its ground" in error
    pair.content["val"]["images"][0].update(mosaic_x=96)
    assert full_check(pair.config()).ok


@pytest.mark.parametrize("name", ["train", "val"])
def test_what_headers_show_is_found_in_every_picture_of_both_sets(pair: Pair, name: str) -> None:
    """Bands and ground sampling distance, in the last picture as well as in the first."""
    with pytest.raises(DataError, match=r"image 1: data\.target_gsd_m is 0\.2 .*'1\.png' is unknown; give images"):
        quick_check(pair.config(target_gsd_m=0.2))
    for part in ("train", "val"):
        for image in pair.content[part]["images"]:
            image["gsd_m"] = 0.1
    quick_check(pair.config(target_gsd_m=0.2))
    del pair.content[name]["images"][1]["gsd_m"]
    with pytest.raises(DataError, match=rf"{name}: image 2: data\.target_gsd_m"):
        quick_check(pair.config(target_gsd_m=0.2))
    write_raster(pair.folder / name / "2.png", np.ones((1, 96, 96), dtype=np.uint8))
    with pytest.raises(DataError, match=rf"{name}: image 2: '2\.png' has 1 band"):
        quick_check(pair.config())
