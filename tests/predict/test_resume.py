"""A prediction that is stopped or killed at any moment goes on to the same map."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
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

from cabruca.errors import DataError, RunError
from cabruca.predict.finished import finished
from cabruca.predict.journal import folder_of, state_of
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


def test_who_ran_out_of_memory_goes_on_with_a_smaller_batch(undisturbed: tuple[Path, list[Any]]) -> None:
    folder, whole = undisturbed
    large, small = (dataclasses.replace(a_plan(folder, "batch.gpkg"), batch_size=size) for size in (4, 1))
    assert not run(large, InProcess(Perfect(DISCS, HW)), StopAfter(2)).finished
    assert run(small, InProcess(Perfect(DISCS, HW))).finished
    assert contents(folder, "batch.gpkg") == whole


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
        time.sleep(0.1)
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
        end = time.monotonic() + 60
        while not state_of(plan.request.out).exists() and time.monotonic() < end:
            time.sleep(0.005)
        assert state_of(plan.request.out).exists()
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


def test_a_log_that_lost_its_end_is_said_and_not_filled_with_zeros(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, "x.gpkg")
    run(plan, InProcess(Perfect(DISCS, HW)), StopAfter(3))
    log = folder_of(plan.request.out) / "crowns.jsonl"
    content = log.read_bytes()
    log.write_bytes(content[:-1])
    with pytest.raises(RunError, match=r"damaged \(crowns.jsonl has \d+ of \d+ bytes\); remove it and begin anew"):
        run(plan, InProcess(Perfect(DISCS, HW)))
    log.write_bytes(content)
    assert run(plan, InProcess(Perfect(DISCS, HW))).finished


def test_a_kill_while_the_working_folder_is_removed_leaves_a_finished_map(
    undisturbed: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder has lost its name before its first file goes; what is left of it goes at the next beginning."""
    folder, whole = undisturbed
    plan, left = a_plan(folder, "removed.gpkg"), folder / "removed.gpkg.partial.done"

    def killed(path: Path, **_: Any) -> None:
        if Path(path).exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run(plan, InProcess(Perfect(DISCS, HW)))
    assert left.is_dir()
    assert not folder_of(plan.request.out).exists()
    assert contents(folder, "removed.gpkg") == whole
    plan.request.out.unlink()
    assert run(plan, InProcess(Perfect(DISCS, HW))).finished
    assert not left.exists()


def test_a_folder_in_the_working_folder_is_no_trouble(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, "x.gpkg")
    (folder_of(plan.request.out) / "mine").mkdir(parents=True)
    (folder_of(plan.request.out) / "0.semantic.flat").write_bytes(b"old")
    assert run(plan, InProcess(Perfect(DISCS, HW))).finished


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are Linux's")
def test_a_state_counts_only_on_planes_that_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And every file of the result is on the disk before it has its name."""
    told: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: told.append(Path(f"/proc/self/fd/{handle}").readlink().name))
    plan = a_plan(tmp_path, "x.gpkg")
    run(plan, InProcess(Perfect(DISCS, HW)), StopAfter(2))
    state = next(k for k, name in enumerate(told) if name.startswith(".state.json"))
    assert {"0.semantic.flat", "0.canopy_density.flat", "0.shade.flat", "crowns.jsonl"} <= set(told[:state])
    run(plan, InProcess(Perfect(DISCS, HW)))
    assert told[-2:] == ["map.gpkg", tmp_path.name]
    assert told.count("x.gpkg.rasters") == 6


def test_rasters_may_go_to_another_folder_when_it_goes_on(undisturbed: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, _ = undisturbed
    plan = a_plan(folder, "moved.gpkg")
    run(plan, InProcess(Perfect(DISCS, HW)), StopAfter(2))
    request = dataclasses.replace(plan.request, raster_out=tmp_path / "rasters")
    done = run(dataclasses.replace(plan, request=request), InProcess(Perfect(DISCS, HW)))
    assert len(done.rasters) == 6
    assert all(path.is_file() and path.parent == tmp_path / "rasters" for path in done.rasters)


def test_a_folder_for_rasters_that_is_a_file_is_said_before_the_work(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, "x.gpkg")
    (tmp_path / "x.gpkg.rasters").write_text("a file")
    with pytest.raises(DataError, match=r"--raster-out '.*' cannot be a folder \(.*\); choose another"):
        check_output(plan.request, resume=False)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"gsd": "native"}, 'gsd: "match" then, "native" now'),
        ({"overlap": 36}, "overlap: 37 then, 36 now"),
        ({"aoi": Path(__file__)}, 'aoi: "" then, "'),
        ({"simplify_px": 0.0}, "simplify_px: "),
        ({"raster_out": None}, "raster_out: true then, false now"),
    ],
)
def test_a_finished_map_is_not_one_of_other_settings(
    undisturbed: tuple[Path, list[Any]], asked: dict[str, Any], said: str
) -> None:
    plan = a_plan(undisturbed[0], "whole.gpkg")
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, raster_out=Path("elsewhere")))
    assert finished(plan, resume=True) is not None, "rasters may lie in another folder by now"
    other = dataclasses.replace(plan, request=dataclasses.replace(plan.request, **asked))
    with pytest.raises(RunError, match=r"with other settings \(" + re.escape(said)):
        finished(other, resume=True)
    with pytest.raises(RunError, match=r"with other settings \(tile_size: 96 then, 128 now\)"):
        finished(dataclasses.replace(plan, tile_size=128), resume=True)
