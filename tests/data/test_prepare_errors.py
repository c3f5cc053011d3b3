"""Bad input to `prepare`: one line with the value, the rule and the remedy; nothing is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from drawn_data import write_raster
from drawn_ortho import PLACES, discs, draw_ortho, to_map, write_labels
from test_prepare import SHARES, area_file, wanted

from cabruca.data.area import read_area
from cabruca.data.prepare import Wanted, prepare
from cabruca.data.vector import read_layer
from cabruca.errors import CabrucaError, ConfigError, DataError

CRS, TRANSFORM = PLACES["metres"]


def refused(one: Wanted, text: str) -> str:
    with pytest.raises(CabrucaError, match=text) as error:
        prepare(one)
    message = str(error.value)
    assert "\n" not in message
    out = Path(one.out)
    assert not out.exists()
    assert list(out.parent.glob(".out*")) == []
    return message


def test_a_raster_without_crs(tmp_path: Path) -> None:
    write_raster(tmp_path / "ortho.tif", np.zeros((3, 320, 448), np.uint8))
    refused(wanted(tmp_path), "has no crs, so labels have no place on it; georeference it")


def test_labels_without_crs(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.shp", to_map(discs(), TRANSFORM), None)
    refused(wanted(tmp_path, name="a.shp"), "states no crs")


def test_metres_in_a_geojson_without_crs(tmp_path: Path) -> None:
    rows = [{"type": "Feature", "properties": {"species": "cacao"}, "geometry": shapely.geometry.mapping(s)}
            for s in to_map(discs(), TRANSFORM)]  # fmt: skip
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": rows}))
    refused(wanted(tmp_path, name="a.geojson"), "states no crs, which means degrees")


def test_labels_elsewhere(tmp_path: Path) -> None:
    far = shapely.affinity.translate(shapely.GeometryCollection(list(discs())), 90000, 0)
    message = refused(wanted(tmp_path, list(far.geoms)), "none of the labels of .* touches the raster")
    assert "the raster x 478512 to 478736" in message


def test_empty_labels(tmp_path: Path) -> None:
    write_labels(tmp_path / "crowns.gpkg", np.array([], dtype=object), CRS, values=[], geometry_type="Polygon")
    refused(wanted(tmp_path), "holds no feature")


def test_points(tmp_path: Path) -> None:
    refused(wanted(tmp_path, shapely.points(np.array([[30.0, 40.0], [90.0, 80.0]]))), "holds 2 Point and no polygon")


def test_invalid_polygons_are_mended_and_counted(tmp_path: Path) -> None:
    shapes = list(discs())
    shapes[3] = shapely.Polygon([(150, 20), (170, 40), (170, 20), (150, 40)])
    assert "1 invalid polygon(s) were mended" in prepare(wanted(tmp_path, shapes)).notes


def test_unknown_values_are_listed_with_the_remedy(tmp_path: Path) -> None:
    values = ["cacau", *["jaqueira"] * 3, None, *["cacao"] * (len(discs()) - 5)]
    write_labels(tmp_path / "crowns.gpkg", to_map(discs(), TRANSFORM), CRS, values=values)
    message = refused(wanted(tmp_path), "label values that are no class: 'jaqueira', 'cacau', \\(empty\\)")
    assert "--map 'cacau=cacao_tree'" in message
    assert "did you mean 'cacao'?" in message


def test_a_map_to_no_class_and_a_map_of_no_value(tmp_path: Path) -> None:
    refused(wanted(tmp_path, class_map={"cacao": "cacao_tre"}), "which is no class; did you mean 'cacao_tree'")
    refused(wanted(tmp_path, class_map={"palm": "shade_tree"}), "--map names 'palm', which no label")


def test_a_wrong_field_lists_the_fields(tmp_path: Path) -> None:
    message = refused(wanted(tmp_path, label_field="specie"), "has no field 'specie'; did you mean 'species'?")
    assert "its fields are: species" in message


def test_labels_without_a_usual_field(tmp_path: Path) -> None:
    write_labels(tmp_path / "crowns.gpkg", to_map(discs(), TRANSFORM), CRS, field="kind")
    refused(wanted(tmp_path), "has none of the fields species, class")
    found = prepare(wanted(tmp_path, class_map={"*": "shade_tree"}))
    assert set(found.sets["train"].crowns) == {"shade_tree"}


def test_regions_that_overlap_or_say_something_else(tmp_path: Path) -> None:
    halves = [shapely.box(0, 0, 240, 320), shapely.box(220, 0, 448, 320)]
    regions = area_file(tmp_path / "r.geojson", halves, field="split", values=["train", "val"])
    refused(wanted(tmp_path, split=str(regions)), r"region 1 \(train\) and region 2 \(val\) share ground")
    other = area_file(tmp_path / "s.geojson", halves, field="split", values=["train", "vall"])
    refused(wanted(tmp_path, split=str(other)), "has split 'vall'; did you mean 'val'")
    none = area_file(tmp_path / "t.geojson", halves[:1], field="split", values=["train"])
    refused(wanted(tmp_path, split=str(none)), "has no region with split 'val'; add one")
    refused(wanted(tmp_path, split=f"{regions}:parts"), "has no field 'parts'")
    refused(wanted(tmp_path, split="spatiall"), "'spatiall' is not there; check the path")


def test_blocks_and_tiles_that_do_not_fit(tmp_path: Path) -> None:
    refused(wanted(tmp_path, shares=replace(SHARES, block_m=5000.0)), "are needed; use a smaller one, such as --block")
    refused(wanted(tmp_path, tile_size=1024), "a tile must fit: use --tile-size 320")
    refused(wanted(tmp_path, overlap=128), "is not smaller than --tile-size")


@pytest.mark.parametrize("changes", [{"val": 0.0}, {"val": 0.6, "test": 0.4}, {"val": -1.0}, {"test": 1.2}])
def test_degenerate_shares(tmp_path: Path, changes: dict[str, Any]) -> None:
    refused(wanted(tmp_path, shares=replace(SHARES, **changes)), "to train on; use a share between")


def test_one_fold_and_folds_of_regions(tmp_path: Path) -> None:
    refused(wanted(tmp_path, shares=replace(SHARES, folds=1)), "--folds 1 is no cross-validation")
    halves = [shapely.box(0, 0, 220, 320), shapely.box(220, 0, 448, 320)]
    regions = area_file(tmp_path / "r.geojson", halves, field="split", values=["train", "val"])
    refused(wanted(tmp_path, split=str(regions), shares=replace(SHARES, folds=3)), "--folds divides spatial blocks")


def test_a_raster_twice_and_a_base_that_is_wrong(tmp_path: Path) -> None:
    one = wanted(tmp_path)
    refused(replace(one, images=[*one.images, *one.images]), "is given twice")
    (tmp_path / "base.yaml").write_text("data: {tile_sise: 3}\n")
    with pytest.raises(ConfigError):
        prepare(replace(one, config=str(tmp_path / "base.yaml")))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.geojson", b"<OGRVRTDataSource/>", "is no GeoPackage"),
        ("a.geojson", b'{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read x"}', "is of type"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": [', "is not valid GeoJSON"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": [3]}', "is of type"),
        ("a.gpkg", b"SQLite format 3\x00" + b"\x00" * 84, "is no GeoPackage"),
        ("a.gpkg", b"", "is no GeoPackage"),
        ("a.gpkg", b"SQLite format 3\x00" + b"\x00" * 52 + b"GPKG" + b"\x00" * 400, "cannot be read as GPKG"),
        ("a.fgb", b"fgb\x03fgb\x00" + b"\xff" * 50, "cannot be read as FlatGeobuf"),
        ("a.csv", b"species,WKT\ncacao,POINT(1 1)\n", "is no GeoPackage"),
    ],
)
def test_other_files_are_not_opened(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text):
        read_layer(tmp_path / name)


@pytest.mark.parametrize("name", ["/vsicurl/http://localhost/a.gpkg", "http://localhost/a.geojson", "/vsizip/a.zip"])
def test_no_url_and_no_virtual_path(name: str) -> None:
    with pytest.raises(DataError, match="only plain files are read"):
        read_layer(name)


def test_several_layers_have_to_be_named(tmp_path: Path) -> None:
    for layer in ("trees", "plots"):
        write_labels(tmp_path / "a.gpkg", to_map(discs(), TRANSFORM), CRS, layer=layer, append=layer == "plots")
    with pytest.raises(DataError, match="has several layers; name one of them: trees, plots"):
        read_layer(tmp_path / "a.gpkg")
    assert len(read_layer(tmp_path / "a.gpkg", layer="trees").shapes) == len(discs())
    with pytest.raises(DataError, match="has no layer 'tree'"):
        read_layer(tmp_path / "a.gpkg", layer="tree")


def test_crowns_are_no_area_and_no_regions(tmp_path: Path) -> None:
    """Of a map that predict wrote: its crowns would be taken for the ground."""
    for layer in ("crowns", "plots"):
        write_labels(tmp_path / "m.gpkg", to_map(discs(), TRANSFORM), CRS, layer=layer, append=layer == "plots")
    assert len(read_layer(tmp_path / "m.gpkg").shapes) == len(discs())
    text = "has several layers; save the right one as a file of its own: crowns, plots"
    refused(wanted(tmp_path, aoi=str(tmp_path / "m.gpkg")), text)
    refused(wanted(tmp_path, split=str(tmp_path / "m.gpkg")), text)
    with pytest.raises(DataError, match=text):
        read_area(tmp_path / "m.gpkg", CRS)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    draw_ortho(tmp_path / "ortho.tif", CRS, TRANSFORM)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        prepare(replace(wanted(tmp_path), out=str(tmp_path / "file" / "out")))
