"""A prediction that is stopped or killed at any moment goes on to the same map."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from maps import layer
from perfect import Disc, Perfect, plan_of, write_coordinates
from rasterio import Affine

from cabruca.errors import RunError
from cabruca.predict.journal import folder_of
from cabruca.predict.plan import Plan
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run
from cabruca.predict.scenes import check_output
from cabruca.predict.watcher import Silent

HW = (200, 220)
RNG = np.random.default_rng(5)
DISCS = [Disc(*RNG.uniform(0, 200, 2), RNG.uniform(4, 18), int(RNG.integers(1, 3))) for _ in range(40)]
PLACE = {"crs": "EPSG:32724", "transform": Affine(0.2, 0, 500_000, 0, -0.2, 8_360_000)}


class StopAfter(Silent):
    """Asks to stop after some batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def stop_asked(self) -> bool:
        self.left -= 1
        return self.left <= 0


def a_plan(folder: Path, out: str, **options: Any) -> Plan:
    images = [folder / "a.tif", folder / "b.tif"]
    for image in images:
        if not image.is_file():
            write_coordinates(image, HW, **PLACE)
    return plan_of(images, folder / out, overlap=37, raster_out=folder / f"{out}.rasters", **options)


def contents(folder: Path, out: str) -> list[Any]:
    rows: list[Any] = []
    for name in ("crowns", "plots", "grid"):
        values, shapes = layer(folder / out, name)
        rows.append((values, [s.wkb for s in shapes]))
    for raster in sorted((folder / f"{out}.rasters").glob("*.tif")):
        with rasterio.open(raster) as source:
            rows.append((raster.name, source.read().tobytes()))
    return rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("predict")
    run(a_plan(folder, "whole.gpkg"), InProcess(Perfect(DISCS, HW)))
    return folder, contents(folder, "whole.gpkg")


@pytest.mark.parametrize("step", [1, 3])
def test_stopped_again_and_again_the_map_is_the_same(undisturbed: tuple[Path, list[Any]], step: int) -> None:
    folder, whole = undisturbed
    plan, stops = a_plan(folder, f"stopped{step}.gpkg"), 0
    while not run(plan, InProcess(Perfect(DISCS, HW)), StopAfter(step)).finished:
        stops += 1
        assert not plan.request.out.exists()
    assert stops >= 3
    assert not folder_of(plan.request.out).exists()
    assert contents(folder, f"stopped{step}.gpkg") == whole


def test_a_failure_between_saves_costs_only_what_was_not_saved(undisturbed: tuple[Path, list[Any]]) -> None:
    """Rows and rasters written after the last state are made again, not twice."""
    folder, whole = undisturbed
    plan = a_plan(folder, "failed.gpkg")

    class Failing(Perfect):
        def __call__(self, batch: Any) -> Any:
            if len(self.calls) == 5:
                raise MemoryError
            return super().__call__(batch)

    run(plan, InProcess(Perfect(DISCS, HW)), StopAfter(3))
    with pytest.raises(MemoryError):
        run(plan, InProcess(Failing(DISCS, HW)), save_s=1e9)
    run(plan, InProcess(Perfect(DISCS, HW)))
    assert contents(folder, "failed.gpkg") == whole


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {support!r}); sys.path.insert(0, {here!r})
import test_resume as t
from perfect import Perfect
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run
class Slow(Perfect):
    def __call__(self, batch):
        time.sleep(0.03)
        return super().__call__(batch)
print("ready", flush=True)
run(t.a_plan(Path({folder!r}), "killed.gpkg"), InProcess(Slow(t.DISCS, t.HW)), save_s=0.0)
"""


def test_killed_at_any_moment_the_map_is_the_same(undisturbed: tuple[Path, list[Any]]) -> None:
    folder, whole = undisturbed
    plan = a_plan(folder, "killed.gpkg")
    here = Path(__file__).parent
    code = KILLED.format(support=str(here.parent / "support"), here=str(here), folder=str(folder))
    for delay_s in (0.05, 0.2):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert not plan.request.out.exists()
    run(plan, InProcess(Perfect(DISCS, HW)))
    assert contents(folder, "killed.gpkg") == whole


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, "x.gpkg")
    run(plan, InProcess(Perfect(DISCS, HW)), StopAfter(2))
    other = dataclasses.replace(plan, score={"cacao_tree": 0.1, "shade_tree": 0.1})
    with pytest.raises(RunError, match=r"other settings \(score: .*go on with those, or remove"):
        run(other, InProcess(Perfect(DISCS, HW)))
    assert run(plan, InProcess(Perfect(DISCS, HW))).finished


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, "x.gpkg")
    run(plan, InProcess(Perfect(DISCS, HW)), StopAfter(2))
    with pytest.raises(RunError, match="go on with --resume"):
        check_output(plan.request, resume=False)
    check_output(plan.request, resume=True)
    run(plan, InProcess(Perfect(DISCS, HW)))
    with pytest.raises(RunError, match="is there already"):
        check_output(plan.request, resume=False)


def test_two_processes_cannot_work_on_one_map(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, "x.gpkg")

    class Second(Silent):
        def stop_asked(self) -> bool:
            with pytest.raises(RunError, match="another process is at work"):
                run(plan, InProcess(Perfect(DISCS, HW)))
            return True

    assert not run(plan, InProcess(Perfect(DISCS, HW)), Second()).finished
