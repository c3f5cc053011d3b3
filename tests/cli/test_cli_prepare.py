"""`cabruca data prepare` on the command line: what it prints, and that what it prints works."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from drawn_data import write_raster
from drawn_ortho import PLACES, discs, draw_ortho, to_map, write_labels
from rasterio.enums import ColorInterp

from cabruca.cli.main import main
from cabruca.data import raster

CRS, TRANSFORM = PLACES["metres"]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    draw_ortho(tmp_path / "ortho.tif", CRS, TRANSFORM)
    values = ["palm", *["cacao"] * (len(discs()) - 1)]
    write_labels(tmp_path / "crowns.gpkg", to_map(discs(), TRANSFORM), CRS, values=values)
    return ["data", "prepare", "--image", str(tmp_path / "ortho.tif"), "--labels", str(tmp_path / "crowns.gpkg"),
            "--tile-size", "128", "--overlap", "32", "--block", "40m", "--out", str(tmp_path / "out")]  # fmt: skip


def run(words: list[str]) -> tuple[int, str]:
    found = CliRunner().invoke(main, words)
    return found.exit_code, found.output + ("" if found.exception is None else str(found.exception))


def test_it_names_the_next_commands(files: list[str], tmp_path: Path) -> None:
    code, said = run([*files, "--map", "palm=shade_tree", "--folds", "2"])
    assert code == 0, said
    assert "crowns with outlines, split by blocks of 40 m" in said
    assert f"train --config {tmp_path / 'out' / 'config.yaml'}" in said
    assert "folds.json and scheduler: {type: none}" in said
    code, said = run(["data", "check", "--config", str(tmp_path / "out" / "config.yaml")])
    assert code == 0, said


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ([], "'palm'"),
        (["--map", "palm"], "is no pair; write --map value=class"),
        (["--map", "palm=shade_tree", "--map", "palm=cacao_tree"], "give it one class"),
        (["--map", "palm=ignore", "--block", "5km"], "is no length; write metres"),
        (["--map", "palm=ignore", "--block", "0"], "is no length; write metres"),
    ],
)
def test_wrong_flags(files: list[str], tmp_path: Path, more: list[str], text: str) -> None:
    code, said = run([*files, *more])
    assert code != 0
    assert text in said
    assert not (tmp_path / "out").exists()


def test_json_and_quiet(files: list[str], tmp_path: Path) -> None:
    code, said = run([*files, "--map", "palm=ignore", "--json"])
    assert code == 0, said
    found = json.loads(said)
    assert found["config"] == str(tmp_path / "out" / "config.yaml")
    assert sum(found["sets"]["train"]["crowns"].values()) > 0
    code, said = run([*files[:-1], str(tmp_path / "again"), "--map", "palm=ignore", "--quiet"])
    assert (code, said) == (0, "")


@pytest.mark.parametrize("known", ["mask", "alpha", "value", "jpeg"])
def test_the_line_for_a_slow_raster_makes_one_that_is_not(tmp_path: Path, known: str) -> None:
    """Of 16 bits, with the same pixels known by the same means; of JPEG with its mask, too."""
    pixels = np.random.default_rng(0).integers(1, 60_000, (3, 128, 2048)).astype(np.uint16)
    there = np.full((128, 2048), 255, np.uint8)
    there[:, :600] = 0
    if known == "alpha":
        pixels = np.concatenate([pixels, there[None].astype(np.uint16) * 257])
    if known == "jpeg":
        pixels = (pixels // 256).astype(np.uint8)
    jpeg = {"compress": "jpeg", "photometric": "ycbcr", "mask": there}
    profile = {"mask": {"mask": there}, "alpha": {}, "value": {"nodata": 0}, "jpeg": jpeg}[known]
    path = write_raster(
        tmp_path / "wide.tif", pixels * (there > 0), crs=CRS, transform=TRANSFORM, blockysize=128, **profile
    )
    with rasterio.open(path, "r+") as file:
        if known == "alpha":
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    crowns = [shapely.Point(x, y).buffer(10) for x in range(630, 2000, 60) for y in (40, 90)]
    write_labels(tmp_path / "c.gpkg", to_map(np.array(crowns), TRANSFORM), CRS)
    words = ["data", "prepare", "--image", str(path), "--labels", str(tmp_path / "c.gpkg"), "--tile-size", "128",
             "--overlap", "32", "--block", "40m"]  # fmt: skip
    code, said = run([*words, "--out", str(tmp_path / "out")])
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if "is not tiled" in line]
    assert "COG" in line
    converted = subprocess.run(shlex.split(line.partition("quicker: ")[2]), capture_output=True, text=True, check=True)
    assert converted.stderr == ""
    tiled = tmp_path / "wide_tiled.tif"
    window = (550, 0, 128, 128)
    for before, after in zip(raster.read(path, (1, 2, 3), window), raster.read(tiled, (1, 2, 3), window), strict=True):
        assert (before == after).all()
    assert not raster.read(tiled, (1,), window)[1].all()
    words[words.index(str(path))] = str(tiled)
    code, said = run([*words, "--out", str(tmp_path / "again")])
    assert code == 0, said
    assert "is not tiled" not in said
