"""`cabruca report` on drawn stands whose numbers are known."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from drawn_map import lattice, write_layer, write_map
from matplotlib.figure import Figure
from shapely import affinity

from cabruca.cli.main import main
from cabruca.errors import DataError
from cabruca.ground import metres_per_degree
from cabruca.metrics.bootstrap import ratio_interval
from cabruca.metrics.spacing import neighbour_metrics
from cabruca.predict import report_pictures
from cabruca.predict.farm_map import read_farm
from cabruca.predict.report import report

TREES = lattice()
N_SHADE = sum(t[3] == "shade_tree" for t in TREES)
N_CACAO = len(TREES) - N_SHADE


def expect_lattice(values: dict[str, float] | object, *, rel: float = 1e-6) -> None:
    """One hectare of `lattice()`: 384 cacao trees, 16 shade trees, 5 m apart."""
    v = dict(values)  # type: ignore[call-overload]
    assert (v["cacao_trees"], v["shade_trees"]) == (N_CACAO, N_SHADE) == (384, 16)
    assert v["area_ha"] == pytest.approx(1.0, rel=rel)
    assert v["cacao_per_ha"] == pytest.approx(384, rel=rel)
    assert v["shade_to_cacao_ratio"] == pytest.approx(16 / 384)
    assert v["nearest_neighbour_mean_m"] == pytest.approx(5.0, rel=rel)
    assert v["crown_diameter_mean_m"] == pytest.approx((384 * 3 + 16 * 8) / 400)
    assert (v["crown_diameter_q25_m"], v["crown_diameter_q75_m"]) == (3.0, 3.0)
    xy = np.array([t[:2] for t in TREES])
    clark = neighbour_metrics([(xy, shapely.box(0, 0, 100, 100))])
    assert v["clark_evans"] == pytest.approx(clark["clark_evans"], rel=max(rel, 1e-9))


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb"])
def test_one_hectare_of_a_lattice(tmp_path: Path, suffix: str) -> None:
    path = write_map(tmp_path / f"farm{suffix}", TREES)
    done = report(path, "grid:1ha", tmp_path / "out" / "report.html", shade_radius_m=7.5)
    assert [p.name for p in done.files] == ["report.html", "report.csv"]
    (plot,) = done.plots
    expect_lattice(plot.values)
    expect_lattice(done.whole.values)
    assert plot.values["canopy_cover"] == pytest.approx(0.5)
    assert plot.values["shade_cover"] == pytest.approx(0.25)
    # within 7.5 m of a shade tree on a lattice of 5 m: its 8 neighbours
    assert plot.values["cacao_in_shade_share"] == pytest.approx(8 * 16 / 384)


def test_degrees_give_the_same_numbers(tmp_path: Path) -> None:
    metres = metres_per_degree(-14.8)
    path = write_map(tmp_path / "farm.gpkg", TREES, crs="EPSG:4326", corner=(-39.2, -14.8), degrees=metres)
    expect_lattice(report(path, "grid:1ha", tmp_path / "r.html").whole.values, rel=1e-4)


def test_a_map_without_a_crs_is_measured_by_its_gsd(tmp_path: Path) -> None:
    """Coordinates are px of 0.1 m then."""
    path = write_map(tmp_path / "farm.gpkg", TREES, crs=None, corner=(0, 0), degrees=(0.1, 0.1))
    expect_lattice(report(path, "grid:1ha", tmp_path / "r.html").whole.values)


def test_cover_without_land_cover_is_that_of_the_crowns(tmp_path: Path) -> None:
    area = sum(math.pi / 4 * t[2] ** 2 for t in TREES)
    shade = 16 * math.pi / 4 * 8**2
    # a shade tree's octagon covers parts of its neighbours: only the shade alone is a plain sum
    for name, grid in (("a", True), ("b", False)):
        path = write_map(tmp_path / f"{name}.gpkg", TREES, canopy=None, shade=None, grid=grid)
        values = report(path, "grid:1ha", tmp_path / f"{name}.html").whole.values
        assert values["shade_cover"] == pytest.approx(shade / 10_000, rel=1e-6)
        assert "of the union of the crowns (the map has none" in (tmp_path / f"{name}.html").read_text()
        assert shade / 10_000 < values["canopy_cover"] < area / 10_000


def test_the_page_says_scores_and_cover_for_people_and_the_csv_plain_numbers(tmp_path: Path) -> None:
    path = write_map(tmp_path / "a.gpkg", TREES, score='{"cacao_tree": 0.4200000000000001, "shade_tree": 0.5}')
    done = report(path, "grid:1ha", tmp_path / "a.html")
    page = done.files[0].read_text()
    assert "cacao tree 0.42 or more, shade tree 0.5 or more" in page
    assert "of the land cover that the network saw<" in page
    (row,) = csv.DictReader(done.files[1].open(encoding="utf-8"))
    assert row["shade_cover"] == "0.25"
    assert max(len(value) for value in row.values()) <= 16
    assert float(row["clark_evans"]) == pytest.approx(done.plots[0].values["clark_evans"], rel=1e-9)
    for score, said in (('{"a": 0.5, "b": 0.5}', ">0.5 or more<"), ("by hand", ">by hand<")):
        other = write_map(tmp_path / f"{said[1]}.gpkg", TREES, score=score)
        assert said in report(other, "grid:1ha", tmp_path / "b.html").files[0].read_text()


def test_ground_that_is_unknown_is_left_out_once(tmp_path: Path) -> None:
    """The lower half of every window is NoData: `known_ha` and the ground both say so. A plot of a quarter has its
    share of that."""
    corner, side, tile = (500_000.0, 8_400_000.0), 100.0, 25.0
    path = write_map(tmp_path / "farm.geojson", TREES)
    corners = [(corner[0] + x, corner[1] + y) for x in np.arange(0, side, tile) for y in np.arange(0, side, tile)]
    known = shapely.union_all([shapely.box(x, y + tile / 2, x + tile, y + tile) for x, y in corners])
    n = len(corners)
    for name in ("plots", "grid"):
        (tmp_path / f"farm.{name}.geojson").unlink()
    grid = {"known_ha": np.full(n, tile**2 / 2 / 10_000), "canopy_cover": np.full(n, 0.5)}
    cores = [shapely.box(x, y, x + tile, y + tile) for x, y in corners]
    write_layer(path, "grid", cores, {**grid, "shade_cover": np.full(n, 0.25)}, "EPSG:31984")
    parts = list(known.geoms)
    write_layer(path, "plots", parts, {"gsd_m": np.full(len(parts), 0.1)}, "EPSG:31984")
    done = report(path, "grid:50m", tmp_path / "r.html")
    assert done.whole.values["area_ha"] == pytest.approx(0.5)
    assert done.whole.values["canopy_cover"] == pytest.approx(0.5)
    assert [p.values["area_ha"] for p in done.plots] == [pytest.approx(0.125)] * 4


def test_boxes_cover_the_ellipse_in_them(tmp_path: Path) -> None:
    """Discs that touch on squares cover pi / 4 of the ground, also where the raster, and so every box, is turned."""
    trees = [(x + 5.0, y + 5.0, 10.0, "shade_tree") for x in range(0, 100, 10) for y in range(0, 100, 10)]
    for angle in (0.0, 0.5):
        path = write_map(tmp_path / f"farm{angle}.geojson", trees, canopy=None, shade=None, grid=False)
        boxes = [
            shapely.box(500_000 + x - 5, 8_400_000 + y - 5, 500_000 + x + 5, 8_400_000 + y + 5) for x, y, *_ in trees
        ]
        turned = [affinity.rotate(b, angle, origin=(500_050, 8_400_050), use_radians=True) for b in boxes]
        fields = {"class": np.array(["shade_tree"] * 100, dtype=object), "shape": np.array(["box"] * 100, dtype=object)}
        write_layer(path, "crowns", turned, fields, "EPSG:31984")
        ground = affinity.rotate(
            shapely.box(500_000, 8_400_000, 500_100, 8_400_100), angle, origin=(500_050, 8_400_050), use_radians=True
        )
        write_layer(path, "plots", [ground], {"gsd_m": np.array([0.1])}, "EPSG:31984")
        values = report(path, "grid:200m", tmp_path / "r.html").whole.values
        assert values["canopy_cover"] == pytest.approx(math.pi / 4, abs=1e-3)
        assert values["shade_cover"] == pytest.approx(math.pi / 4, abs=1e-3)


def test_text_where_numbers_should_be_names_the_field(tmp_path: Path) -> None:
    path = write_map(tmp_path / "farm.geojson", TREES)
    text = path.read_text()
    path.write_text(text.replace('"score": 0.9', '"score": "high"'))
    with pytest.raises(DataError, match=r"field 'score' of .* holds something else than numbers"):
        report(path, "grid:1ha", tmp_path / "r.html")


def test_plots_that_were_drawn(tmp_path: Path) -> None:
    """The left half holds twice the trees of the right one; a plot elsewhere is left out, one half outside is cut."""
    trees = [(x, y, 2.0, "cacao_tree") for x in (10.0, 20.0, 30.0, 40.0) for y in (20.0, 60.0)]
    trees += [(x, y, 2.0, "cacao_tree") for x in (60.0, 80.0) for y in (20.0, 60.0)]
    path = write_map(tmp_path / "farm.gpkg", trees)
    x, y = 500_000.0, 8_400_000.0
    shapes = [shapely.box(x + a, y, x + b, y + 100) for a, b in ((0, 50), (50, 150), (900, 950))]
    write_layer(
        tmp_path / "plots.gpkg",
        "mine",
        shapes,
        {"name": np.array(["left", "<b>right", "far"], dtype=object)},
        "EPSG:31984",
    )
    done = report(path, str(tmp_path / "plots.gpkg"), tmp_path / "r.html", json_path=tmp_path / "r.json")
    assert [(p.name, p.values["cacao_trees"], p.values["area_ha"]) for p in done.plots] == [
        ("left", 8, pytest.approx(0.5)),
        ("<b>right", 4, pytest.approx(0.5)),
    ]
    page = (tmp_path / "r.html").read_text()
    assert "&lt;b&gt;right" in page
    assert "<b>right" not in page
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert [(r["plot"], float(r["cacao_per_ha"])) for r in rows] == [("left", 16.0), ("<b>right", 8.0)]
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["whole"]["cacao_trees"] == 12
    assert told["plots"][1]["shade_to_cacao_ratio"] == 0
    assert told["whole"]["cacao_per_ha_low"] < 12 < told["whole"]["cacao_per_ha_high"]


def test_plots_of_another_crs_are_moved(tmp_path: Path) -> None:
    """The same square in WGS 84 degrees, with a margin."""
    from rasterio.warp import transform_bounds

    path = write_map(tmp_path / "farm.gpkg", TREES)
    box = transform_bounds("EPSG:31984", "EPSG:4326", 499_990, 8_399_990, 500_110, 8_400_110)
    write_layer(tmp_path / "p.gpkg", "mine", [shapely.box(*box)], {"id": np.array([7])}, "EPSG:4326")
    (plot,) = report(path, str(tmp_path / "p.gpkg"), tmp_path / "r.html").plots
    expect_lattice(plot.values)
    assert plot.name == "7"


def test_an_inventory_beside_the_map(tmp_path: Path) -> None:
    """Ten trees 0.6 m and 0.8 m off (1 m), one of them another species, one that nobody found, one outside."""
    trees = [(10.0 + 8 * i, 50.0, 3.0, "cacao_tree") for i in range(10)]
    path = write_map(tmp_path / "farm.gpkg", trees)
    rows = [
        (500_000 + x + 0.6, 8_400_000 + y + 0.8, "shade" if i == 0 else "cacao") for i, (x, y, *_) in enumerate(trees)
    ]
    rows += [(500_050.0, 8_400_090.0, "cacao"), (500_500.0, 8_400_000.0, "cacao")]
    text = "\n".join(f"{i},{s},{x},{y}" for i, (x, y, s) in enumerate(rows))
    (tmp_path / "trees.csv").write_text(f"id,species,x,y\n{text}\n")
    found = report(path, "grid:1ha", tmp_path / "r.html", inventory=tmp_path / "trees.csv").whole.inventory
    assert found["inventory_trees"] == 11
    assert found["inventory_detection_rate"] == pytest.approx(10 / 11)
    assert found["inventory_position_error_m"] == pytest.approx(1.0)
    assert found["inventory_species_agreement"] == pytest.approx(0.9)
    assert "Beside the inventory" in (tmp_path / "r.html").read_text()
    listed = [{"species": s, "coordinates": [x, y]} for x, y, s in rows]
    (tmp_path / "trees.json").write_text(json.dumps({"trees": listed}))
    same = report(path, "grid:1ha", tmp_path / "r.html", inventory=tmp_path / "trees.json").whole.inventory
    assert same == pytest.approx(dict(found), nan_ok=True)
    (tmp_path / "far.csv").write_text("id,species,x,y\n1,cacao,1,1\n")
    with pytest.raises(DataError, match="stands on the map's ground"):
        report(path, "grid:1ha", tmp_path / "r.html", inventory=tmp_path / "far.csv")


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    path = write_map(tmp_path / "farm.gpkg", TREES)
    report(path, "grid:50m", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    for word in ("http:", "https:", "<script", "<link", "src='", "@import"):
        assert word not in page
    assert "prefers-color-scheme: dark" in page
    assert ">A1<" in page
    assert ">B2<" in page


@pytest.mark.filterwarnings("error")
def test_the_largest_crowns_are_in_the_histogram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tree of another class, larger than all others, as shade trees are."""
    drawn: list[Figure] = []
    monkeypatch.setattr(report_pictures, "_png", lambda figure: drawn.append(figure) or b"")
    large = (50.0, 50.0, 14.0, "shade_tree")
    farm = read_farm(write_map(tmp_path / "farm.gpkg", [*TREES, large]))
    report_pictures.diameters(farm)
    bars = [bar for bar in drawn[0].axes[0].patches if bar.get_height() > 0]
    assert sum(bar.get_height() for bar in bars) == len(farm.trees) == len(TREES) + 1
    assert any(bar.get_x() <= 14.0 <= bar.get_x() + bar.get_width() + 1e-6 for bar in bars)


def test_a_map_without_crowns_is_reported(tmp_path: Path) -> None:
    path = write_map(tmp_path / "farm.gpkg", [])
    values = report(path, "grid:1ha", tmp_path / "r.html").whole.values
    assert values["cacao_trees"] == 0
    assert math.isnan(values["shade_to_cacao_ratio"])


def test_what_cannot_be_reported_says_why(tmp_path: Path) -> None:
    path = write_map(tmp_path / "farm.gpkg", TREES)
    (tmp_path / "fake.gpkg").write_text("hello")
    (tmp_path / "vrt.geojson").write_text("<OGRVRTDataSource></OGRVRTDataSource>")
    (tmp_path / "vrt.fgb").write_text("fgb<OGRVRTDataSource></OGRVRTDataSource>")
    for wrong, plots, out, said in (
        (tmp_path / "none.gpkg", "grid:1ha", "r.html", "is not there; check the path"),
        (tmp_path, "grid:1ha", "r.html", "not a plain file"),
        ("/vsicurl/http://127.0.0.1/a.gpkg", "grid:1ha", "r.html", "only plain files are read"),
        (tmp_path / "fake.gpkg", "grid:1ha", "r.html", "whatever its name"),
        (tmp_path / "vrt.geojson", "grid:1ha", "r.html", "whatever its name"),
        (tmp_path / "vrt.fgb", "grid:1ha", "r.html", "whatever its name"),
        (path, "grid:1acre", "r.html", "write grid:1ha"),
        (path, "grid:1ha", "r.pdf", "ends in .html"),
        (path, str(tmp_path / "fake.gpkg"), "r.html", "whatever its name"),
    ):
        with pytest.raises(DataError, match=said):
            report(wrong, plots, tmp_path / out)
    write_layer(tmp_path / "far.gpkg", "mine", [shapely.box(0, 0, 1, 1)], {"id": np.array([7])}, "EPSG:31984")
    with pytest.raises(DataError, match="no plot of"):
        report(path, str(tmp_path / "far.gpkg"), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """200 farms of 60 windows with Poisson counts: 95 % intervals of the density hold it in 88 to 99 % of them."""
    rng = np.random.default_rng(1)
    held = 0
    for k in range(200):
        counts = rng.poisson(6.0, 60).astype(np.float64)
        low, high = ratio_interval(counts, np.full(60, 0.02), seed=k)
        held += low <= 300.0 <= high
    assert 176 <= held <= 198
    assert all(math.isnan(v) for v in ratio_interval(np.ones(4), np.ones(4)))
    assert ratio_interval(np.full(9, 2.0), np.ones(9)) == (2.0, 2.0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_map(tmp_path / "farm.gpkg", TREES)
    with pytest.raises(SystemExit) as done:
        main(["report", str(path), "--plots", "grid:1ha", "--out", str(tmp_path / "r.html")])
    assert done.value.code == 0
    assert "384 cacao and 16 shade trees on 1.00 ha, 1 plot\n" in capsys.readouterr().out


def test_no_network_is_imported() -> None:
    code = (
        "import sys, cabruca.predict.report; print([m for m in sys.modules if m.startswith(('cabruca.model', 'timm'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
