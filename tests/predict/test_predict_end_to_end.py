"""A real, tiny checkpoint: trained, its facts read, a map made of it by the command and by the Python API."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from drawn_farm import farm_config, write_farm
from maps import layer
from rasterio import Affine

import cabruca
from cabruca.cli.main import main
from cabruca.data.facts import training_facts
from cabruca.data.pictures import PictureSet
from cabruca.evaluation import load_trained
from cabruca.facts import TrainingFacts
from cabruca.launch import train


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one epoch: it knows little, and finds something, at most 40 crowns a window, at a score of nearly 0."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {"training.num_epochs": 1, "validation.max_detections": 40}
    config = farm_config(write_farm(folder / "farm"), folder / "out", settings)
    train(config, quiet=True)
    return next(folder.glob("out/*/checkpoints/checkpoint_latest.pth"))


def write_ortho(path: Path, height: int, width: int) -> Path:
    rng = np.random.default_rng(0)
    profile: dict[str, Any] = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8"}
    place = Affine(0.1, 0, 500_000, 0, -0.1, 8_360_000)
    with rasterio.open(path, "w", **profile, crs="EPSG:32724", transform=place) as out:
        out.write(rng.integers(0, 255, (3, height, width), dtype=np.uint8))
    return path


@pytest.fixture
def ortho(tmp_path: Path) -> Path:
    return write_ortho(tmp_path / "ortho.tif", 100, 110)


def test_the_checkpoint_knows_its_training_data(checkpoint: Path) -> None:
    facts = load_trained(checkpoint).facts
    assert facts is not None
    assert facts.gsd_m == pytest.approx(0.1)
    assert facts.masks == {"cacao_tree": True, "shade_tree": True}
    assert sum(facts.crowns.values()) == 18
    assert min(facts.crowns.values()) > 0
    assert facts.crown_diameter_p95_px is not None
    assert 20 < facts.crown_diameter_p95_px < 31  # discs have a radius from 7 to 15 px
    assert facts.crown_diameter_p95_m == pytest.approx(facts.crown_diameter_p95_px / 10)
    assert facts.land_cover


def test_facts_of_boxes(tmp_path: Path) -> None:
    farm = write_farm(tmp_path, boxes_only=True)
    from drawn import SPEC

    facts = training_facts(PictureSet(farm / "images", farm / "farm.json", SPEC, cache_mb=0))
    assert facts.masks == {"cacao_tree": False, "shade_tree": False}
    assert set(facts.crowns) == {"cacao_tree", "shade_tree"}
    assert sum(facts.crowns.values()) == 18
    assert facts.guessed == ()
    assert not facts.land_cover


def test_facts_go_there_and_back() -> None:
    facts = TrainingFacts(0.1, 20.0, 2.0, {"a": True}, False, {"a": 3, "b": 0})
    assert TrainingFacts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
    assert facts.guessed == ("b",)
    before = facts.to_dict()
    del before["crowns"]
    assert TrainingFacts.from_dict(before).guessed == (), "of an earlier release: unknown"
    with pytest.raises(ValueError, match="gsd_m is -1"):
        TrainingFacts.from_dict({"gsd_m": -1})


def test_the_command_makes_a_map_and_says_what_it_did(checkpoint: Path, ortho: Path) -> None:
    out = ortho.with_name("map.gpkg")
    given = ["predict", "--checkpoint", checkpoint, "--image", ortho, "--out", out, "--score", "0.02", "--json",
             "--raster-out", ortho.with_name("rasters"), "--device", "cpu"]  # fmt: skip
    done = CliRunner().invoke(main, [str(v) for v in given])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["event"] == "result"
    assert lines[-1]["crowns"] == len(layer(out)[0]["class"])
    assert len(lines[-1]["rasters"]) == 3
    plots, _ = layer(out, "plots")
    assert plots["area_ha"] == [pytest.approx(100 * 110 * 0.01 / 1e4)]
    assert json.loads(plots["score"][0]) == {"cacao_tree": 0.02, "shade_tree": 0.02}
    assert len(plots["checkpoint_sha256"][0]) == 64
    again = CliRunner().invoke(main, [str(v) for v in given])
    assert again.exit_code == 2
    assert "is there already; choose another --out, or remove it" in again.stderr
    resumed = CliRunner().invoke(main, [str(v) for v in [*given, "--resume"]])
    assert resumed.exit_code == 0
    assert json.loads(resumed.stdout.splitlines()[-1])["crowns"] == lines[-1]["crowns"]


def test_the_python_function_and_other_formats(checkpoint: Path, ortho: Path) -> None:
    done = cabruca.predict(checkpoint, ortho, ortho.with_name("map.geojson"), score=0.02, device="cpu")
    assert done.finished
    assert len(layer(done.out, None)[0]["class"]) == done.crowns > 0


def test_a_checkpoint_of_before_says_once_what_it_does_not_know(checkpoint: Path, ortho: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    del state["task"]["data"]
    torch.save(state, tmp_path / "old.pth")
    given = ["predict", "--checkpoint", tmp_path / "old.pth", "--image", ortho, "--out", tmp_path / "map.gpkg"]
    done = CliRunner().invoke(main, [str(v) for v in given])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("does not know its training scale") == 1
    assert done.stderr.count("no operating point") == 1


def test_a_class_without_masks_is_written_as_boxes(tmp_path: Path, ortho: Path) -> None:
    farm = write_farm(tmp_path / "farm", boxes_only=True)
    config = farm_config(farm, tmp_path / "out", {"training.num_epochs": 1})
    train(config, quiet=True)
    checkpoint = next(tmp_path.glob("out/*/checkpoints/checkpoint_latest.pth"))
    done = cabruca.predict(checkpoint, ortho, tmp_path / "map.gpkg", score=0.02, device="cpu")
    values, shapes = layer(done.out)
    assert set(values["shape"]) == {"box"}
    for shape, area, diameter in zip(shapes, values["area_m2"], values["diameter_m"], strict=True):
        x0, y0, x1, y1 = shape.bounds
        assert area == pytest.approx(np.pi / 4 * (x1 - x0) * (y1 - y0), rel=1e-6)
        assert diameter == pytest.approx((x1 - x0 + y1 - y0) / 2, rel=1e-6)
    assert set(values["canopy_share"]) == {None}


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_saves_and_says_how_to_go_on(checkpoint: Path, tmp_path: Path) -> None:
    ortho, out = write_ortho(tmp_path / "ortho.tif", 144, 144), tmp_path / "map.gpkg"
    given = ["--checkpoint", checkpoint, "--image", ortho, "--out", out, "--score", "0.02", "--batch-size", "1"]
    words = [sys.executable, "-m", "cabruca", "predict", *map(str, given), "--device", "cpu"]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "map.gpkg.partial").is_dir() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    again = re.search(r"stopped and saved; go on with: (.*--resume)$", said, re.M)
    assert again is not None
    assert not out.exists()
    words = shlex.split(again[1])
    done = CliRunner().invoke(main, words[words.index("predict") :])
    assert done.exit_code == 0, done.output
    whole = cabruca.predict(checkpoint, ortho, tmp_path / "whole.gpkg", score=0.02, batch_size=1, device="cpu")
    assert layer(out)[0] == layer(whole.out)[0]
