"""`prepare`: what it writes, what belongs to whom, what it refuses, and that nothing half-made is left."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from drawn_data import write_raster
from drawn_ortho import CENTRES, DEGREES, HEIGHT, PLACES, UTM, WIDTH, discs, draw_ortho, to_map, write_labels
from rasterio.transform import from_bounds

from cabruca.config.load import load_config
from cabruca.data import prepare as module
from cabruca.data.check import full_check, quick_check
from cabruca.data.prepare import Wanted, prepare
from cabruca.data.prepare_output import Output
from cabruca.data.prepare_split import Shares
from cabruca.data.vector import moved
from cabruca.errors import DataError

CRS, TRANSFORM = PLACES["metres"]
SHARES = Shares(0.25, 0.2, 0, 40.0, 3)


def wanted(folder: Path, shapes: Any = None, *, name: str = "crowns.gpkg", **changes: Any) -> Wanted:
    image = folder / "ortho.tif"
    if not image.exists():
        draw_ortho(image, CRS, TRANSFORM)
    labels = folder / name
    if not labels.exists():
        write_labels(labels, to_map(discs() if shapes is None else np.asarray(shapes, dtype=object), TRANSFORM), CRS)
    given = {"tile_size": 128, "overlap": 32, "shares": SHARES, **changes}
    return Wanted([str(image)], str(labels), str(folder / "out"), **given)


def coco(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "out" / f"{name}.json").read_text())
    return content


def area_file(path: Path, shapes: Any, **fields: Any) -> Path:
    return write_labels(path, to_map(np.asarray(shapes, dtype=object), TRANSFORM), CRS, **fields)


def test_every_crown_is_counted_by_one_split_and_its_neighbours_ignore_it(tmp_path: Path) -> None:
    found = prepare(wanted(tmp_path))
    counted: list[int] = []
    crowds = 0
    for name in ("train", "val", "test"):
        content = coco(tmp_path, name)
        rows = content["annotations"]
        counted += [r["attributes"]["label"] for r in rows if not r["iscrowd"]]
        crowds += sum(r["iscrowd"] for r in rows)
        window = {i["id"]: shapely.union_all([shapely.Polygon(p[0], p[1:]) for p in i["labelled"]])
                  for i in content["images"]}  # fmt: skip
        for r in rows:
            x, y, w, h = r["bbox"]
            ground, centre = window[r["image_id"]], shapely.Point(x + w / 2, y + h / 2)
            on_line = shapely.dwithin(ground.boundary, centre, 0.02)  # one split has it, whichever
            assert on_line or ground.covers(centre) != bool(r["iscrowd"])
    assert sorted(counted) == list(range(len(CENTRES)))
    assert crowds > 0
    assert sum(sum(s.crowns.values()) for s in found.sets.values()) == len(CENTRES)


def test_the_labelled_grounds_of_the_splits_share_nothing_and_are_the_hull(tmp_path: Path) -> None:
    prepare(wanted(tmp_path))
    grounds = []
    for name in ("train", "val", "test"):
        for image in coco(tmp_path, name)["images"]:
            shape = shapely.union_all([shapely.Polygon(p[0], p[1:]) for p in image["labelled"]])
            grounds.append(shapely.affinity.translate(shape, *image["window"][:2]))
    whole = shapely.union_all(grounds)
    assert whole.area == pytest.approx(sum(g.area for g in grounds), rel=1e-4)
    hull = shapely.convex_hull(shapely.union_all(discs()))
    assert whole.symmetric_difference(hull).area < 0.01 * hull.area


def test_the_data_that_it_writes_pass_both_checks(tmp_path: Path) -> None:
    prepare(wanted(tmp_path))
    config = load_config(tmp_path / "out" / "config.yaml")
    assert config.data.tile_size == 128
    quick_check(config)
    report = full_check(config)
    assert report.errors == []


def test_the_same_seed_gives_the_same_files_and_another_seed_another_split(tmp_path: Path) -> None:
    first = wanted(tmp_path)
    prepare(first)
    prepare(replace(first, out=str(tmp_path / "again")))
    prepare(replace(first, out=str(tmp_path / "other"), shares=replace(SHARES, seed=4)))
    for name in ("train.json", "val.json", "split.geojson"):
        text = (tmp_path / "out" / name).read_bytes()
        assert text == (tmp_path / "again" / name).read_bytes()
        assert text != (tmp_path / "other" / name).read_bytes()


def test_shares_are_met_by_ground_and_crowns(tmp_path: Path) -> None:
    found = prepare(wanted(tmp_path, shares=Shares(0.25, 0.2, 0, 25.0, 0)))
    for of in (lambda s: s.hectares, lambda s: sum(s.crowns.values())):
        total = sum(of(s) for s in found.sets.values())
        assert of(found.sets["val"]) / total == pytest.approx(0.25, abs=0.06)
        assert of(found.sets["test"]) / total == pytest.approx(0.2, abs=0.06)


def test_folds_hold_every_block_out_once(tmp_path: Path) -> None:
    found = prepare(wanted(tmp_path, shares=Shares(0.2, 0, 3, 40.0, 0)))
    held = [r["attributes"]["label"] for k in (1, 2, 3) for r in coco(tmp_path, f"fold_{k}_val")["annotations"]
            if not r["iscrowd"]]  # fmt: skip
    assert sorted(held) == list(range(len(CENTRES)))
    folds = json.loads((tmp_path / "out" / "folds.json").read_text())["folds"]
    assert [Path(f["val_annotations"]).name for f in folds] == [f"fold_{k}_val.json" for k in (1, 2, 3)]
    assert all(Path(f["train_annotations"]).is_file() and f["val_dir"] == str(tmp_path) for f in folds)
    for k in (1, 2, 3):
        own = found.sets[f"fold_{k}/train"].crowns, found.sets[f"fold_{k}/val"].crowns
        assert sum(sum(c.values()) for c in own) == len(CENTRES)


def test_regions_decide_and_ground_outside_of_them_is_unknown(tmp_path: Path) -> None:
    west, east = shapely.box(0, 0, 200, HEIGHT), shapely.box(260, 0, WIDTH, HEIGHT)
    regions = area_file(tmp_path / "regions.gpkg", [west, east], field="part", values=["training", "val"])
    found = prepare(wanted(tmp_path, split=f"{regions}:part"))
    assert set(found.sets) == {"train", "val"}
    lost = sum(200 < x < 260 for x, _ in CENTRES)
    assert lost > 0
    assert sum(sum(s.crowns.values()) for s in found.sets.values()) == len(CENTRES) - lost
    assert any(note.startswith(f"{lost} of") for note in found.notes)


def test_an_aoi_limits_what_is_labelled(tmp_path: Path) -> None:
    aoi = area_file(tmp_path / "aoi.geojson", [shapely.box(0, 0, 300, 200)], field="", values=[])
    prepare(wanted(tmp_path, aoi=str(aoi), shares=Shares(0.3, 0, 0, 40.0, 1)))
    counted = [r["attributes"]["label"] for n in ("train", "val") for r in coco(tmp_path, n)["annotations"]
               if not r["iscrowd"]]  # fmt: skip
    assert sorted(counted) == [k for k, (x, y) in enumerate(CENTRES) if x < 300 and y < 200]


def test_land_cover_is_painted_from_crowns_and_unknown_outside(tmp_path: Path) -> None:
    prepare(wanted(tmp_path))
    with rasterio.open(tmp_path / "out" / "land_cover" / "ortho.tif") as file:
        assert file.profile["tiled"]
        assert file.profile["compress"] == "deflate"
        ids = file.read(1)
    x, y = (int(v) for v in CENTRES[0])
    assert ids[y, x] == 2  # the first is a shade tree
    assert ids[0, 0] == 255
    area = np.pi * 11**2
    assert (ids == 1).sum() == pytest.approx(sum(k % 3 != 0 for k in range(len(CENTRES))) * area, rel=0.02)


def test_a_hole_stays_a_hole_and_parts_are_one_crown(tmp_path: Path) -> None:
    shapes = list(discs())
    shapes[1] = shapes[1].difference(shapely.Point(*CENTRES[1]).buffer(4))
    shapes[2] = shapely.MultiPolygon([shapely.box(60, 60, 66, 66), shapely.box(70, 60, 80, 66)])
    found = prepare(wanted(tmp_path, shapes))
    assert "1 label(s) of several parts are one crown each" in found.notes
    config = load_config(tmp_path / "out" / "config.yaml", {"data.augmentation.enabled": False})
    from cabruca.data.coco import read_coco

    rows = [(i, a) for n in ("train", "val", "test") for i in read_coco(tmp_path / "out" / f"{n}.json").images
            for a in i.annotations if not a.crowd]  # fmt: skip
    crops = [(a.paint((i.height, i.width), (i.height, i.width)), i.window) for i, a in rows]
    holed = [c for c, w in crops if c is not None and 0.5 < c[2].mean() < 0.74]
    assert len(holed) == 1
    assert holed[0][2].sum() == pytest.approx(np.pi * (121 - 16), rel=0.08)
    assert sum(a.outline is not None and len(a.outline) == 2 and (a.box_xyxy_px[2] - a.box_xyxy_px[0]) == 20
               for _, a in rows) == 1  # fmt: skip
    assert config.data.test_annotations


def boxes() -> np.ndarray:
    return np.asarray([shapely.box(x - 9, y - 8, x + 9, y + 8) for x, y in CENTRES], dtype=object)


@pytest.mark.parametrize("place", ["metres", "turned"])
def test_upright_rectangles_are_boxes_and_it_says_so(tmp_path: Path, place: str) -> None:
    crs, transform = PLACES[place]
    draw_ortho(tmp_path / "ortho.tif", crs, transform)
    write_labels(tmp_path / "crowns.gpkg", to_map(boxes(), transform), crs, to=DEGREES)
    found = prepare(wanted(tmp_path))
    assert found.boxes
    assert any("taken as boxes" in note for note in found.notes)
    content = coco(tmp_path, "train")
    assert content["info"]["annotation_type"] == "bbox"
    assert all(a["attributes"]["bbox_only"] for a in content["annotations"])
    assert not (tmp_path / "out" / "land_cover").exists()


def test_boxes_turned_against_the_pixels_are_outlines_unless_told(tmp_path: Path) -> None:
    turned = [shapely.affinity.rotate(b, 30) for b in boxes()]
    one = wanted(tmp_path, turned)
    assert not prepare(one).boxes
    assert prepare(replace(one, out=str(tmp_path / "told"), labels_are="boxes")).boxes


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.shp", "a.fgb"])
def test_every_format_gives_the_same_crowns(tmp_path: Path, name: str) -> None:
    found = prepare(wanted(tmp_path, name=name))
    assert sum(sum(s.crowns.values()) for s in found.sets.values()) == len(CENTRES)
    assert set(found.sets["train"].crowns) == {"cacao_tree", "shade_tree"}


def test_two_rasters_of_two_crs_share_blocks(tmp_path: Path) -> None:
    one = wanted(tmp_path)
    more = tmp_path / "more"
    corners = moved(to_map(np.array([shapely.box(0, 0, WIDTH, HEIGHT)]), TRANSFORM), rasterio.CRS.from_string(CRS),
                    rasterio.CRS.from_string(DEGREES), what="test")[0].bounds  # fmt: skip
    second = draw_ortho(more / "b.tif", DEGREES, from_bounds(*corners, WIDTH, HEIGHT), nodata=0)
    found = prepare(replace(one, images=[*one.images, str(second)]))
    assert sum(sum(s.crowns.values()) for s in found.sets.values()) == 2 * len(CENTRES)
    config = load_config(tmp_path / "out" / "config.yaml")
    assert full_check(config).errors == []
    assert {i["file_name"] for i in coco(tmp_path, "val")["images"]} == {"ortho.tif", "more/b.tif"}


def test_striped_and_masked_rasters_are_read_alike(tmp_path: Path) -> None:
    from cabruca.data.dataset import TrainWindows, input_spec

    samples = []
    for kind, profile in (("plain", {}), ("tiled", {"tiled": True, "blockxsize": 64, "blockysize": 64})):
        folder = tmp_path / kind
        draw_ortho(folder / "ortho.tif", CRS, TRANSFORM, **profile)
        prepare(wanted(folder))
        config = load_config(folder / "out" / "config.yaml", {"data.cache_mb": 0})
        samples.append(TrainWindows(config, input_spec(config)).get(0, 3))
    assert (samples[0].image == samples[1].image).all()
    folder = tmp_path / "masked"
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:160] = 0
    draw_ortho(folder / "ortho.tif", CRS, TRANSFORM, mask=mask)
    prepare(wanted(folder))
    config = load_config(folder / "out" / "config.yaml")
    windows = TrainWindows(config, input_spec(config))
    seen = [windows.get(0, i) for i in range(windows.num_samples())]
    assert any(not bool(s.valid.all()) for s in seen)
    assert all(s.labelled is None or not bool((s.labelled & ~s.valid).any()) for s in seen)


def test_a_slow_raster_is_named_with_the_remedy(tmp_path: Path) -> None:
    rows = np.zeros((3, 128, 2048), np.uint8)
    write_raster(tmp_path / "wide.tif", rows, crs=CRS, transform=TRANSFORM, blockysize=128)
    crowns = [shapely.Point(x, y).buffer(10) for x in range(30, 2000, 60) for y in (40, 90)]
    write_labels(tmp_path / "c.gpkg", to_map(np.array(crowns), TRANSFORM), CRS)
    one = Wanted([str(tmp_path / "wide.tif")], str(tmp_path / "c.gpkg"), str(tmp_path / "out"), tile_size=128,
                 overlap=32, shares=SHARES)  # fmt: skip
    assert prepare(one).slow == [str(tmp_path / "wide.tif")]


def test_an_interrupted_prepare_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Output:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_all", broken)
    with pytest.raises(KeyboardInterrupt):
        prepare(wanted(tmp_path))
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out*")) == []
    (tmp_path / f".out.preparing-{socket.gethostname()}-999999999").mkdir()
    monkeypatch.undo()
    prepare(wanted(tmp_path))
    assert list(tmp_path.glob(".out*")) == []


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    one = wanted(tmp_path)
    prepare(one)
    before = (tmp_path / "out" / "train.json").read_bytes()
    with pytest.raises(DataError, match="is there already; remove it"):
        prepare(replace(one, shares=replace(SHARES, seed=9)))
    assert (tmp_path / "out" / "train.json").read_bytes() == before
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    prepare(one)


def test_the_units_of_the_real_ortho_agree(tmp_path: Path, real_data: Any) -> None:
    folder = real_data("neon_yell_ortho")
    one = Wanted([str(folder / "ortho.tif")], str(folder / "boxes.geojson"), str(tmp_path / "out"), overlap=96,
                 class_map={"tree": "shade_tree"}, split=str(folder / "split_regions.geojson"))  # fmt: skip
    found = prepare(one)
    assert found.boxes
    truth = json.loads((folder / "annotations.json").read_text())["annotations"]
    own = json.loads((tmp_path / "out" / "train.json").read_text())
    corner = own["images"][0]["window"][:2]
    centres = np.array([a["bbox"] for a in truth])
    for a in own["annotations"]:
        box = np.add(a["bbox"], (*corner, 0, 0))
        assert np.abs(centres - box).max(axis=1).min() < 0.5
    assert UTM
