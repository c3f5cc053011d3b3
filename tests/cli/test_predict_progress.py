"""What `cabruca predict` tells on its way; `--quiet` hides progress, not what may cost crowns."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from perfect import SPEC, write_coordinates
from rasterio import Affine

from cabruca.cli import predict_progress
from cabruca.cli.predict_progress import Teller
from cabruca.predict.picture import Picture, open_picture


def test_quiet_lets_warnings_through(capsys: pytest.CaptureFixture[str]) -> None:
    with Teller(quiet=True, as_json=False) as teller:
        teller.say("crowns on a seam may be cut")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "crowns on a seam may be cut\n")


def a_picture(folder: Path, *, georeferenced: bool) -> Picture:
    """100 x 200 px, of 1 m where it has a scale: 2 ha."""
    place = {"crs": "EPSG:32724", "transform": Affine(1, 0, 5e5, 0, -1, 8e6)} if georeferenced else {}
    return open_picture(write_coordinates(folder / "a.tif", (100, 200), **place), SPEC, None, match=True)


def test_progress_tells_hectares_crowns_and_the_time_that_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the ground in 60 s after the first tenth; the last line comes whatever the time."""
    clock = iter([1000.0, 1060.0, 1061.0])
    monkeypatch.setattr(predict_progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    picture = a_picture(tmp_path, georeferenced=True)
    with Teller(quiet=False, as_json=False) as teller:
        for done_px, crowns in ((2_000, 3), (12_000, 40), (20_000, 70)):
            teller.progress(picture, done_px, crowns)
    assert capsys.readouterr().err.splitlines() == [
        "a.tif: 0.2 of 2 ha, 3 crowns, - left",
        "a.tif: 1.2 of 2 ha, 40 crowns, 48s left",
        "a.tif: 2 of 2 ha, 70 crowns, 0s left",
    ]


def test_progress_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1000.0, 1060.0, 1061.0])
    monkeypatch.setattr(predict_progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with Teller(quiet=True, as_json=True) as teller:
        picture = a_picture(tmp_path, georeferenced=True)
        teller.progress(picture, 2_000, 3)
        teller.progress(picture, 12_000, 40)
        teller.progress(a_picture(tmp_path, georeferenced=False), 20_000, 70)
    first, second, plain = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["event"], first["done"], first["hectares"], first["eta_s"]) == ("progress", 0.1, 0.2, None)
    assert (second["hectares"], second["crowns"], second["eta_s"]) == (1.2, 40, 48.0)
    assert (plain["done"], plain["hectares"]) == (1.0, None)
