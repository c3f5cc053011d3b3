"""`cabruca data prepare` on the command line: what it prints, and that what it prints works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from drawn_ortho import PLACES, discs, draw_ortho, to_map, write_labels

from cabruca.cli.main import main

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
