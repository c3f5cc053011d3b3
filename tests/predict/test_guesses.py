"""Crowns of a class that had no example in training: predict, its map, the report and the model card say so."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from drawn_map import lattice, write_map
from maps import layer
from perfect import Disc, Perfect, plan_of, write_coordinates
from rasterio import Affine

from cabruca.cli.main import main
from cabruca.facts import TrainingFacts, guesses
from cabruca.predict.pool import InProcess
from cabruca.predict.report import report
from cabruca.predict.run import run
from cabruca.predict.watcher import Silent
from cabruca.tracking.card_data import SetFacts, guessed_classes

HW = (120, 160)
BOTH = [Disc(40, 40, 10), Disc(110, 80, 14, 2), Disc(110, 30, 9, 2)]
SAID = (
    "class 'shade_tree' had no example in training: its 4 crowns are guesses; leave it out of counts, or train with "
    "examples of it"
)
"""Two rasters show the discs."""


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def predict(folder: Path, crowns: Mapping[str, int], discs: Sequence[Disc] = BOTH, *, ending: str = "gpkg") -> Path:
    """A map of two rasters that show the same; `said.json` beside it holds what was said."""
    images = [
        write_coordinates(folder / f"{x}.tif", HW, crs="EPSG:32724", transform=Affine(0.2, 0, x, 0, -0.2, 8_360_000))
        for x in (500_000, 501_000)
    ]
    plan = plan_of(images, folder / f"map.{ending}", overlap=30)
    plan = dataclasses.replace(plan, facts=TrainingFacts(crowns=crowns))
    watcher = Listening()
    run(plan, InProcess(Perfect(discs, HW)), watcher)
    (folder / "said.json").write_text(json.dumps([line for line in watcher.said if "no example" in line]))
    return plan.request.out


def said(folder: Path) -> list[str]:
    return list(json.loads((folder / "said.json").read_text()))


@pytest.mark.parametrize("ending", ["gpkg", "geojson", "fgb"])
def test_predict_map_and_report_warn_once(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = predict(tmp_path, {"cacao_tree": 5, "shade_tree": 0}, ending=ending)
    assert said(tmp_path) == [SAID]
    plots = layer(path if ending == "gpkg" else tmp_path / f"map.plots.{ending}", "plots" if ending == "gpkg" else None)
    assert plots[0]["guessed_classes"] == ["shade_tree"] * 2
    page, numbers = tmp_path / "r.html", tmp_path / "r.json"
    with pytest.raises(SystemExit) as done:
        main(["report", str(path), "--plots", "grid:1ha", "--out", str(page), "--json", str(numbers), "--quiet"])
    assert done.value.code == 0
    assert capsys.readouterr().err == f"warning: {SAID}\n"
    assert json.loads(numbers.read_text())["warnings"] == [SAID]
    assert page.read_text().count("its 4 crowns are guesses") == 1


@pytest.mark.parametrize(
    ("crowns", "discs"),
    [
        ({"cacao_tree": 5, "shade_tree": 1}, BOTH),
        ({"cacao_tree": 5, "shade_tree": 0}, BOTH[:1]),
        ({}, BOTH),
    ],
    ids=["learnt", "not on the map", "a checkpoint of before"],
)
def test_where_nothing_is_guessed_nothing_is_said(
    tmp_path: Path, crowns: Mapping[str, int], discs: Sequence[Disc]
) -> None:
    path = predict(tmp_path, crowns, discs)
    assert said(tmp_path) == []
    assert report(path, "grid:1ha", tmp_path / "r.html").warnings == ()
    assert "no example" not in (tmp_path / "r.html").read_text()


def test_one_crown_is_one_guess() -> None:
    (line,) = guesses(["b", "c"], {"a": 3, "b": 1})
    assert line.startswith("class 'b' had no example in training: its 1 crown is a guess; ")


def test_a_map_of_before_does_not_know(tmp_path: Path) -> None:
    path = write_map(tmp_path / "farm.gpkg", lattice())
    assert report(path, "grid:1ha", tmp_path / "r.html").warnings == ()


@pytest.mark.parametrize(
    ("task", "counted", "missing"),
    [
        ({"data": {"crowns": {"a": 3, "b": 0}}}, None, ["b"]),
        ({"data": {"crowns": {"a": 3, "b": 0}}}, {"a": 3, "b": 2}, ["b"]),
        ({"data": {}}, {"a": 3}, ["b"]),
        ({}, {"a": 3, "b": 2}, []),
        ({}, None, []),
    ],
    ids=["a file too large to count", "groups are counted too", "as counted", "all there", "unknown"],
)
def test_the_model_card_names_them(task: dict[str, object], counted: dict[str, int] | None, missing: list[str]) -> None:
    images = None if counted is None else 1
    own = SetFacts("training", "x.json", images, crowns=counted or {})
    assert guessed_classes(task, [own], ("a", "b")) == missing
