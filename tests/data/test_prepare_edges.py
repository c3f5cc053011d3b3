"""`prepare` at edges: of the raster, of blocks, of systems, and of what a vector file may hold."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from drawn_ortho import CENTRES, DEGREES, HEIGHT, PLACES, WIDTH, discs, draw_ortho, to_map, write_labels
from rasterio.transform import Affine, from_bounds
from test_prepare import SHARES, area_file, boxes, coco, wanted

from cabruca.config.load import load_config
from cabruca.data import prepare as module
from cabruca.data.check import full_check
from cabruca.data.dataset import TrainWindows, input_spec
from cabruca.data.part import read_labelled
from cabruca.data.prepare import prepare
from cabruca.data.prepare_split import Shares
from cabruca.data.vector import layer_names, moved, read_layer
from cabruca.errors import DataError

CRS, TRANSFORM = PLACES["metres"]
WHOLE = shapely.box(0, 0, 2 * WIDTH, HEIGHT)


def counted(folder: Path, *names: str) -> list[int]:
    return sorted(
        r["attributes"]["label"]
        for name in names or ("train", "val", "test")
        for r in coco(folder, name)["annotations"]
        if not r["iscrowd"]
    )


def with_second(folder: Path, more: list[tuple[float, float]], *, crs: str = CRS, **changes: object) -> module.Wanted:
    """`wanted` with crowns at more places, and a raster that lies against the first one's right edge."""
    one = wanted(folder, discs([*CENTRES, *more]), **changes)
    bounds = to_map(np.array([shapely.box(WIDTH, 0, 2 * WIDTH, HEIGHT)]), TRANSFORM)
    if crs == CRS:
        transform = TRANSFORM * Affine.translation(WIDTH, 0)
    else:
        there = moved(bounds, rasterio.CRS.from_string(CRS), rasterio.CRS.from_string(crs), what="test")[0].bounds
        transform = from_bounds(*there, WIDTH, HEIGHT)
    second = draw_ortho(folder / "second.tif", crs, transform)
    return module.Wanted(**{**one.__dict__, "images": [*one.images, str(second)]})


def test_boxes_that_the_edge_of_the_raster_cuts_are_boxes(tmp_path: Path) -> None:
    """Drawn in degrees they are turned by a degree, so the edge cuts corners off."""
    at_edge = [shapely.box(0, y, 18, y + 16) for y in (2, 60, 130)] + [shapely.box(WIDTH - 9, 100, WIDTH + 9, 116)]
    draw_ortho(tmp_path / "ortho.tif", CRS, TRANSFORM)
    turned = np.array([shapely.affinity.rotate(b, 1) for b in (*boxes(), *at_edge)])
    write_labels(tmp_path / "crowns.gpkg", to_map(turned, TRANSFORM), CRS, to=DEGREES)
    assert prepare(wanted(tmp_path)).boxes


def test_a_crown_on_the_border_of_two_rasters_is_counted_by_one(tmp_path: Path) -> None:
    more = [(x + WIDTH, y) for x, y in CENTRES] + [(WIDTH - 4.0, 105.0), (WIDTH + 3.0, 205.0)]
    found = prepare(with_second(tmp_path, more))
    assert counted(tmp_path) == list(range(len(CENTRES) + len(more)))
    assert sum(sum(s.crowns.values()) for s in found.sets.values()) == len(CENTRES) + len(more)
    crowds = [(i["file_name"], r["attributes"]["label"]) for n in ("train", "val", "test") for i in
              coco(tmp_path, n)["images"] for r in coco(tmp_path, n)["annotations"]
              if r["iscrowd"] and r["image_id"] == i["id"]]  # fmt: skip
    last = len(CENTRES) + len(more) - 1
    assert ("second.tif", last - 1) in crowds
    assert ("ortho.tif", last) in crowds


@pytest.mark.parametrize("more", [[], [(WIDTH + 100.0, 100.0)]])
def test_a_second_raster_of_another_crs_with_no_crown_or_one(tmp_path: Path, more: list[tuple[float, float]]) -> None:
    aoi = area_file(tmp_path / "aoi.gpkg", [WHOLE], field="", values=[])
    prepare(with_second(tmp_path, more, crs=DEGREES, aoi=str(aoi)))
    assert counted(tmp_path) == list(range(len(CENTRES) + len(more)))


def test_an_area_that_reaches_a_hair_over_the_line_of_a_block(tmp_path: Path) -> None:
    """0.4 mm over the line x = 478550 m, which is column 76."""
    aoi = area_file(tmp_path / "aoi.gpkg", [shapely.box(76 - 0.0008, 0, WIDTH, HEIGHT)], field="", values=[])
    prepare(wanted(tmp_path, aoi=str(aoi), shares=Shares(0.25, 0.2, 0, 50.0, 3)))
    config = load_config(tmp_path / "out" / "config.yaml")
    assert full_check(config).errors == []
    assert TrainWindows(config, input_spec(config)).num_samples() > 0
    for name in ("train", "val", "test"):
        assert all(shapely.Polygon(p[0]).area > 1 for i in coco(tmp_path, name)["images"] for p in i["labelled"])


def test_blocks_larger_than_the_ground_are_not_dropped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are needed; use a smaller one"):
        prepare(wanted(tmp_path, shares=Shares(0.25, 0.2, 0, 100_000.0, 3)))


def test_a_spike_that_rounding_would_lay_on_an_edge_stays_valid(tmp_path: Path) -> None:
    spike = [(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (225, HEIGHT), (224, 0.003), (223, HEIGHT), (0, HEIGHT)]
    aoi = area_file(tmp_path / "aoi.gpkg", [shapely.Polygon(spike)], field="", values=[])
    prepare(wanted(tmp_path, aoi=str(aoi)))
    for name in ("train", "val", "test"):
        for image in coco(tmp_path, name)["images"]:
            assert all(shapely.is_valid(shapely.Polygon(p[0], p[1:])) for p in image["labelled"])


def test_labelled_ground_that_crosses_itself_is_mended() -> None:
    bow_tie = [[[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]], [[[2, 0], [8, 0], [8, 4], [2, 4], [2, 0]]]]
    found = read_labelled(Path("a.json"), {"id": 1, "labelled": bow_tie}, (10, 10))
    assert found is not None
    # two triangles of 25, and of the box what lies above both: 6 * 4 less the triangles' part of it
    triangles = shapely.union_all(
        [shapely.Polygon(t) for t in ([(0, 0), (5, 5), (0, 10)], [(10, 0), (5, 5), (10, 10)])]
    )
    assert found.shape.area == pytest.approx(triangles.union(shapely.box(2, 0, 8, 4)).area)
    for wrong in ([[[[0, 0], [1, 1], [2, 2], [0, 0]]]], []):
        with pytest.raises(DataError, match="covers none of the picture"):
            read_labelled(Path("a.json"), {"id": 1, "labelled": wrong}, (10, 10))


def test_labels_keep_the_numbers_that_they_have_in_their_file(tmp_path: Path) -> None:
    shapes = [shapely.Point(50, 50), *discs()]
    prepare(wanted(tmp_path, shapes))
    assert counted(tmp_path) == list(range(1, len(shapes)))
    rows = [r for n in ("train", "val", "test") for r in coco(tmp_path, n)["annotations"]]
    assert all((r["attributes"]["value"] == "shade_tree") == (r["attributes"]["label"] % 3 == 0) for r in rows)


def test_labels_that_touch_no_raster_are_told(tmp_path: Path) -> None:
    found = prepare(wanted(tmp_path, discs([*CENTRES, (WIDTH + 50, 50), (-50, 50)])))
    assert f"2 of {len(CENTRES) + 2} labels touch no raster and are left out" in found.notes


def test_an_empty_collection_holds_no_feature(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(DataError, match="holds no feature"):
        read_layer(tmp_path / "a.geojson")
    assert len(read_layer(tmp_path / "a.geojson", may_be_empty=True).shapes) == 0


def test_text_of_another_encoding_than_the_file_states(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "a.shp", to_map(discs(), TRANSFORM), CRS, values=["cação"] * len(CENTRES),
                        encoding="ISO-8859-1")  # fmt: skip
    assert read_layer(path).fields["species"][0] == "cação"
    (tmp_path / "a.cpg").write_text("UTF-8")
    with pytest.raises(DataError, match="save it with its encoding, or as GeoPackage"):
        read_layer(path)


def test_a_table_of_styles_is_no_layer(tmp_path: Path) -> None:
    aoi = area_file(tmp_path / "aoi.gpkg", [shapely.box(0, 0, 300, 200)], field="", values=[], layer="aoi")
    pyogrio.raw.write(aoi, None, [np.array(["<qgis/>"], dtype=object)], ["styleQML"], layer="layer_styles",
                      driver="GPKG", geometry_type=None, append=True)  # fmt: skip
    assert [name for name, _ in pyogrio.list_layers(aoi)] == ["aoi", "layer_styles"]
    assert layer_names(aoi) == ["aoi"]
    prepare(wanted(tmp_path, aoi=str(aoi), shares=Shares(0.3, 0, 0, 40.0, 1)))
    assert counted(tmp_path, "train", "val") == [k for k, (x, y) in enumerate(CENTRES) if x < 300 and y < 200]


def test_folders_of_living_commands_and_other_machines_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.socket, "gethostname", lambda: "here-1")
    for name in (f"here-1-{os.getppid()}", "here-1-999999999", "there-999999999"):
        (tmp_path / f".out.preparing-{name}").mkdir()
    prepare(wanted(tmp_path, shares=SHARES))
    left = {p.name.removeprefix(".out.preparing-") for p in tmp_path.glob(".out.preparing-*")}
    assert left == {f"here-1-{os.getppid()}", "there-999999999"}
