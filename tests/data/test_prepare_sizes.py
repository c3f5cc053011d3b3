"""Tile size and overlap that `prepare` writes: flags, else the configuration's, with room for the crowns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from click.testing import CliRunner
from drawn_ortho import PLACES, discs, draw_ortho, to_map, write_labels

from cabruca.cli.main import main
from cabruca.config.load import load_config
from cabruca.data.check import full_check

CRS, TRANSFORM = PLACES["metres"]
BASE = """
data: {tile_size: 96, overlap: 16%s}
validation: {max_side_px: 96, max_detections: 300}
"""


def prepare(folder: Path, *flags: str, base: str | None = BASE % "", shapes: Any = None) -> str:
    """What the command says; crowns of 22 px and pictures of 40 m, which are 80 px and their margins."""
    if not (folder / "ortho.tif").exists():
        draw_ortho(folder / "ortho.tif", CRS, TRANSFORM)
        write_labels(folder / "crowns.gpkg", to_map(discs() if shapes is None else shapes, TRANSFORM), CRS)
    words = ["data", "prepare", "--image", folder / "ortho.tif", "--labels", folder / "crowns.gpkg", "--block", "40m"]
    words += ["--out", folder / "out", *flags]
    if base is not None:
        (folder / "base.yaml").write_text(base)
        words += ["--config", folder / "base.yaml"]
    done = CliRunner().invoke(main, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    return done.output


def written(folder: Path) -> tuple[int, int]:
    data = load_config(folder / "out" / "config.yaml").data
    asked = json.loads((folder / "out" / "index.json").read_text())["asked"]
    assert (asked["tile_size"], asked["overlap"]) == (data.tile_size, data.overlap)
    return data.tile_size, data.overlap


def warnings(folder: Path) -> list[str]:
    report = full_check(load_config(folder / "out" / "config.yaml"))
    assert report.errors == []
    return [w for w in report.warnings if "data.overlap" in w]


def test_without_flags_the_configuration_decides_and_crowns_have_room(tmp_path: Path) -> None:
    said = prepare(tmp_path)
    assert written(tmp_path) == (96, 32)
    assert f"  --tile-size 96 and --overlap 16 px: from {tmp_path / 'base.yaml'}\n" in said
    assert "  data.overlap is now 32 px, not 16: the largest crown to validate on has 22\n" in said
    assert warnings(tmp_path) == []


def test_flags_win_and_are_not_explained(tmp_path: Path) -> None:
    said = prepare(tmp_path, "--tile-size", "128", "--overlap", "8")
    assert written(tmp_path) == (128, 8)
    assert "overlap" not in said
    assert len(warnings(tmp_path)) == 1, "as it was asked for"


def test_without_a_configuration_the_defaults_hold(tmp_path: Path) -> None:
    said = prepare(tmp_path, "--tile-size", "128", base=None)
    assert written(tmp_path) == (128, 64)
    assert "  --overlap 64 px: from the defaults\n" in said


def test_pictures_that_are_validated_whole_need_no_overlap(tmp_path: Path) -> None:
    said = prepare(tmp_path, base=(BASE % "").replace("max_side_px: 96", "max_side_px: 1024"))
    assert written(tmp_path) == (96, 16)
    assert "is now" not in said
    assert warnings(tmp_path) == []


def test_crowns_are_measured_on_the_grid_that_is_read(tmp_path: Path) -> None:
    """0.5 m a pixel, read at 0.25: twice as many."""
    said = prepare(tmp_path, base=BASE % ", target_gsd_m: 0.25")
    assert written(tmp_path) == (96, 64)
    assert "the largest crown to validate on has 44\n" in said
    assert warnings(tmp_path) == []


def test_a_crown_that_no_tile_holds_is_said(tmp_path: Path) -> None:
    middle = shapely.get_coordinates(shapely.centroid(discs()))
    large = np.asarray(shapely.buffer(shapely.points(middle), 50.0))
    said = prepare(tmp_path, shapes=large)
    assert written(tmp_path) == (96, 16)
    assert "and data.overlap must be smaller than data.tile_size, 96: counts of found crowns suffer; use --tile" in said
    assert len(warnings(tmp_path)) == 1
