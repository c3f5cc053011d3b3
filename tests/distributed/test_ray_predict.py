"""Predict on workers: the map of one process, also when a worker is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import LIGHT, SPEC
from maps import layer
from perfect import Perfect, plan_of, write_coordinates
from PIL import Image
from ray_perfect import DISCS, HW, Told

from cabruca.config.schema import Config
from cabruca.distributed.ray_predict import RayPool
from cabruca.distributed.team import Team
from cabruca.errors import DataError, RunError
from cabruca.facts import TrainingFacts
from cabruca.launch import predict
from cabruca.model.build import build_model
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run
from cabruca.train.checkpoint import FORMAT_VERSION

TEAM = Team(2, 2, {"CPU": 1.0}, use_gpu=False)


def contents(out: Path) -> list[Any]:
    found = [layer(out, name) for name in ("crowns", "plots", "grid")]
    return [(values, [s.wkb for s in shapes]) for values, shapes in found]


def on_workers(image: Path, out: Path, told: Told, failures: int = 3) -> list[Any]:
    pool = RayPool(told, 2, TEAM, max_failures=failures)
    try:
        run(plan_of([image], out, overlap=37), pool)
    finally:
        pool.close()
    return contents(out)


def test_the_map_is_that_of_one_process_also_when_a_worker_is_lost(cluster: object, tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW)
    run(plan_of([image], tmp_path / "one.gpkg", overlap=37), InProcess(Perfect(DISCS, HW)))
    whole = contents(tmp_path / "one.gpkg")
    assert on_workers(image, tmp_path / "lost.gpkg", Told(str(tmp_path / "once"))) == whole
    assert (tmp_path / "once").exists(), "a worker was lost"


@pytest.mark.slow
def test_a_worker_that_is_lost_again_and_again_is_named(cluster: object, tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW)
    with pytest.raises(RunError, match=r"worker \d was lost more often.*--resume"):
        on_workers(image, tmp_path / "x.gpkg", Told(str(tmp_path / "once"), always=True), failures=1)


def test_what_a_worker_finds_wrong_is_said_in_one_line(cluster: object, tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW)
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="the file is damaged"):
        on_workers(image, tmp_path / "x.gpkg", Told())


def test_a_checkpoint_gives_the_same_map_on_workers(cluster: object, tmp_path: Path) -> None:
    config, image = Config(model=LIGHT.model_copy(update={"pretrained": "none"})), tmp_path / "a.png"
    torch.manual_seed(0)
    state = {
        "format_version": FORMAT_VERSION,
        "model": build_model(config, SPEC, weights=False).state_dict(),
        "config": config.to_dict(),
        "task": {"input": SPEC.to_dict(), "data": TrainingFacts(crown_diameter_p95_px=24.0).to_dict()},
    }
    torch.save(state, tmp_path / "ck.pth")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (160, 240, 3), dtype=np.uint8)).save(image)
    given = {"score": 0.3, "device": "cpu", "batch_size": 1}
    alone = predict(tmp_path / "ck.pth", image, tmp_path / "one.gpkg", **given)
    many = predict(tmp_path / "ck.pth", image, tmp_path / "many.gpkg", workers=2, **given)
    assert alone.crowns == many.crowns > 0
    assert contents(tmp_path / "many.gpkg") == contents(tmp_path / "one.gpkg")
