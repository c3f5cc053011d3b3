"""Inventories that lie elsewhere, and what spreadsheets make of a file."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from drawn import SPEC
from rasterio.crs import CRS

from cabruca.config.schema import Config, ValidationConfig
from cabruca.data.inventory import load_inventory
from cabruca.data.placing import Plane
from cabruca.errors import DataError
from cabruca.ground import Ground, Inventory
from cabruca.measuring import inventory_of

UTM = Plane(CRS.from_epsg(31984).to_wkt(), (1.0, 1.0))
PICTURE = Ground("p", (0.1, 0.0, 499_990.0, 0.0, -0.1, 8_397_500.0), True, "1", (0, 0), (600, 600))
"""60 m of ground around 39 degrees west, 14.5 degrees south."""

HERE, SWAPPED = [-39.0, -14.4954], [-14.4954, -39.0]


def place(folder: Path, content: Any, name: str = "i.json") -> Inventory:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return load_inventory(path, SPEC, {"p": UTM}, [PICTURE])["p"]


def trees(*places: list[float], **more: Any) -> dict[str, Any]:
    return {"trees": [{"species": "cacao", "coordinates": xy} for xy in places], **more}


def test_where_it_lies_in_the_pictures_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cabruca")
    x, y = place(tmp_path, trees(HERE, crs="EPSG:4326")).xy_m[0].tolist()
    assert 499_990 < x < 500_050
    assert 8_397_440 < y < 8_397_500
    assert not caplog.records


@pytest.mark.parametrize(
    "content",
    [
        trees(SWAPPED, SWAPPED, crs="EPSG:4326"),
        trees(HERE),  # degrees, and the rasters are in metres
        trees([500_000.0, 8_397_450.0], crs="EPSG:31982"),  # two zones to the west
    ],
    ids=["swapped", "degrees", "zone"],
)
def test_an_inventory_that_lies_elsewhere_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"0 of its . trees lie in the pictures; .* lon and lat swapped"):
        place(tmp_path, content)


def test_where_most_of_it_lies_elsewhere_both_places_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "cabruca")
    far = [480_000.0, 8_397_450.0]
    place(tmp_path, trees([500_000.0, 8_397_450.0], far))
    assert not caplog.records, "half of them are there"
    found = place(tmp_path, trees([500_000.0, 8_397_450.0], far, far))
    assert len(found) == 3
    (said,) = [r.getMessage() for r in caplog.records]
    assert "1 of its 3 trees" in said
    assert "x 480000 to 500000" in said
    assert "x 499990 to 500050" in said


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (trees(HERE, [-14.2, -139.1], crs="EPSG:4326"), "i.json", r"tree 2 at \(-14.2, -139.1\)"),
        (trees([490_000, 8_430_000], crs="EPSG:4326"), "i.json", "tree 1 at .*no place in the pictures"),
        (trees([1e30, 1e30], crs="EPSG:31983"), "i.json", "tree 1 at .*no place in the pictures"),
        (trees([1, 2], crs="EPSG:5773"), "i.json", "has no x and y"),
        (trees([1, 2], crs="EPSG:4978"), "i.json", "has no x and y"),
        ("id,species,x,y\n1,cacao,500000,25,8400000,75\n", "i.csv", "6 columns and the first line 4.*comma"),
        ("id;species;x;y\n1;cacao;500000,5;8400000,5\n", "i.csv", "separated by semicolons"),
        ("species,lon,lat,crs\ncacao,-39,-14.5,EPSG:31984\n", "i.csv", "lon, lat and the crs 'EPSG:31984'"),
        ("species,x,y,x\ncacao,1,2,3\n", "i.csv", "column x twice"),
        ("id,species,x,y\n7,cacao,1,2\n8,cacao,1,2\n7,cacao,3,2\n", "i.csv", "trees 1 and 3 have the id '7'"),
        (f"species,x,y,note\ncacao,1,2,{'a' * 200_000}\n", "i.csv", "is no CSV"),
        ('{"trees":[{"species":"cacao","coordinates":[' + "9" * 400 + ",1]}]}", "i.json", "tree 1 holds what"),
        ('{"trees":[{"species":"cacao","coordinates":[' + "9" * 5000 + ",1]}]}", "i.json", "is no JSON"),
    ],
)
def test_it_is_refused_in_one_line(tmp_path: Path, content: Any, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        place(tmp_path, content, name)
    assert "\n" not in str(error.value)


def test_degrees_beside_a_map_are_left_aside(tmp_path: Path) -> None:
    row = "species,lon,lat,x,y,crs\ncacao,-39.1,-14.2,500000,8397450,EPSG:31984\n"
    assert place(tmp_path, row, "i.csv").xy_m.tolist() == [pytest.approx([500_000.0, 8_397_450.0])]


def test_an_inventory_that_nothing_is_compared_with_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cabruca")
    off = Config(validation=ValidationConfig(plantation_data="i.json", calculate_agroforestry_metrics=False))
    assert inventory_of(None, off, SPEC) is None  # type: ignore[arg-type]
    assert "calculate_agroforestry_metrics is false" in caplog.text


def test_a_plane_at_the_other_end_of_the_world_does_not_refuse_the_trees(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    path.write_text(json.dumps(trees(HERE, crs="EPSG:4326")))
    far = Plane(CRS.from_user_input("+proj=gnom +lat_0=14.5 +lon_0=141 +datum=WGS84").to_wkt(), (1.0, 1.0))
    found = load_inventory(path, SPEC, {"p": UTM, "far": far}, [PICTURE])
    assert (len(found["p"]), len(found["far"])) == (1, 0)
