"""Inventories in JSON and CSV, in the rasters' CRS and in degrees, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import SPEC
from rasterio.crs import CRS

from cabruca.data.inventory import load_inventory
from cabruca.data.placing import Plane
from cabruca.errors import DataError
from cabruca.ground import Inventory, metres_per_degree
from cabruca.structures import InputSpec

UTM = Plane(CRS.from_epsg(31984).to_wkt(), (1.0, 1.0))
TREES = [
    {"id": 1, "species": "cacao", "coordinates": [500000.0, 8400000.0], "crown_diameter_m": 4.5},
    {"id": 2, "species": "shade_tree", "coordinates": [500010.0, 8400020.0]},
]


def written(folder: Path, content: Any, name: str = "i.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def loaded(path: Path, spec: InputSpec = SPEC) -> Inventory:
    return load_inventory(path, spec, {"p": UTM})["p"]


def test_json_in_the_rasters_crs(tmp_path: Path) -> None:
    found = loaded(written(tmp_path, {"trees": TREES}))
    assert found.labels.tolist() == [1, 2]
    assert found.xy_m.tolist() == [[500000.0, 8400000.0], [500010.0, 8400020.0]]
    assert found.diameter_m == pytest.approx([4.5, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    "text",
    [
        "id,species,x,y,crown_diameter_m\n1,cacao,500000,8400000,4.5\n2,Shade,500010,8400020,\n",
        "\ufeffSpecies, X, Y, crs\ncacao_tree, 500000, 8400000, EPSG:31984\nshade, 500010, 8400020, EPSG:31984\n",
    ],
)
def test_csv(tmp_path: Path, text: str) -> None:
    found = loaded(written(tmp_path, text, "i.CSV"))
    assert found.labels.tolist() == [1, 2]
    assert found.xy_m == pytest.approx(np.array([[500000.0, 8400000.0], [500010.0, 8400020.0]]), abs=1e-6)


def test_degrees_by_crs_and_by_column_names(tmp_path: Path) -> None:
    """The central meridian of UTM zone 24 S: 39 degrees west is easting 500,000."""
    tree = {"species": "cacao", "coordinates": [-39.0, -14.5]}
    stated = loaded(written(tmp_path, {"crs": "EPSG:4326", "trees": [tree]}))
    named = loaded(written(tmp_path, "species,lon,lat\ncacao,-39.0,-14.5\n", "i.csv"))
    assert stated.xy_m == pytest.approx(named.xy_m)
    easting, northing = stated.xy_m[0]
    assert easting == pytest.approx(500000.0, abs=0.01)
    assert northing == pytest.approx(10_000_000 - 0.9996 * 1_603_900, abs=1500)


def test_degrees_on_a_plane_made_of_degrees(tmp_path: Path) -> None:
    east, north = metres_per_degree(-14.5)
    plane = Plane(CRS.from_epsg(4326).to_wkt(), (east, north))
    path = written(tmp_path, {"trees": [{"species": "cacao", "coordinates": [-39.0, -14.5]}]})
    assert load_inventory(path, SPEC, {"p": plane})["p"].xy_m == pytest.approx(np.array([[-39 * east, -14.5 * north]]))


def test_species_by_the_category_map(tmp_path: Path) -> None:
    trees = [{"species": s, "coordinates": [0, 0]} for s in ("Inga edulis", "CACAO", "palm")]
    spec = InputSpec.from_dict({**SPEC.to_dict(), "category_map": {"Inga edulis": "shade_tree", "palm": "ignore"}})
    assert loaded(written(tmp_path, {"trees": trees}), spec).labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (None, "i.json", "is not there"),
        ("{", "i.json", "is no JSON"),
        ([], "i.json", "no list of trees"),
        ({"trees": [{"species": "cacao"}]}, "i.json", "tree 1 needs"),
        ({"trees": [{"species": "cacao", "coordinates": ["a", 1]}]}, "i.json", "tree 1 holds what is no number"),
        ({"trees": [{"species": "cacao", "coordinates": [float("inf"), 1]}]}, "i.json", "tree 1 lies at"),
        ({"trees": [{**TREES[0], "crown_diameter_m": -1}]}, "i.json", "above 0 m"),
        ({"trees": [{**TREES[0], "species": "cacoa"}]}, "i.json", "did you mean 'cacao'"),
        ({"trees": TREES, "crs": "EPSG:nothing"}, "i.json", "is not known"),
        ({"trees": TREES, "crs": 4326}, "i.json", "write a name"),
        ("species,x\ncacao,1\n", "i.csv", "no column y"),
        ("species,x,y\ncacao,1\n", "i.csv", "tree 1 has fewer columns"),
        ("species,x,y,crs\ncacao,1,2,EPSG:4326\ncacao,1,2,EPSG:31984\n", "i.csv", "use one for all"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, content: Any, name: str, said: str) -> None:
    path = tmp_path / name if content is None else written(tmp_path, content, name)
    with pytest.raises(DataError, match=said) as error:
        loaded(path)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_it_needs_georeferenced_pictures_of_one_crs(tmp_path: Path) -> None:
    path = written(tmp_path, {"trees": TREES})
    with pytest.raises(DataError, match="none of the pictures is georeferenced"):
        load_inventory(path, SPEC, {})
    other = Plane(CRS.from_epsg(31983).to_wkt(), (1.0, 1.0))
    with pytest.raises(DataError, match="states no crs and the pictures have 2"):
        load_inventory(path, SPEC, {"p": UTM, "q": other})
