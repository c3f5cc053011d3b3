"""Predict on workers: the map of one process, also when a worker is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from maps import layer
from perfect import Perfect, plan_of, write_coordinates
from ray_perfect import DISCS, HW, Told

from cabruca.distributed.ray_predict import RayPool
from cabruca.distributed.team import Team
from cabruca.errors import DataError, RunError
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run

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


def test_the_map_is_that_of_one_process(cluster: object, tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW)
    run(plan_of([image], tmp_path / "one.gpkg", overlap=37), InProcess(Perfect(DISCS, HW)))
    whole = contents(tmp_path / "one.gpkg")
    assert on_workers(image, tmp_path / "many.gpkg", Told()) == whole
    assert on_workers(image, tmp_path / "lost.gpkg", Told(str(tmp_path / "once"))) == whole


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
