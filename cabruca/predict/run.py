"""From a plan to a map: rasters one after the other, windows in order, everything on disk as it comes."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import shapely

from cabruca.data.caching import bounded_cache
from cabruca.data.sparse import Blocks
from cabruca.facts import guesses
from cabruca.predict.found import Look, Reading
from cabruca.predict.journal import Journal
from cabruca.predict.plan import Plan
from cabruca.predict.planes import Planes
from cabruca.predict.pool import Pool, Windows
from cabruca.predict.reading import CACHE_BYTES, Reader
from cabruca.predict.rows import Row
from cabruca.predict.scenes import Scene, scenes_of
from cabruca.predict.state import restore, to_plain
from cabruca.predict.stitch import Stitcher
from cabruca.predict.sweep import Sweep
from cabruca.predict.vector import CROWNS, PLOTS, grid_fields, write_map
from cabruca.predict.watcher import Silent, Watcher
from cabruca.predict.windows import Window

SAVE_S = 10.0
"""Seconds of work that a kill may cost."""


@dataclass(frozen=True)
class Summary:
    """What came of it. `finished` False: stopped and saved. `crowns`: of the map. `seconds`: of this process."""

    finished: bool
    out: Path
    crowns: int
    area_ha: float | None
    rasters: tuple[Path, ...]
    seconds: float


def run(plan: Plan, pool: Pool, watcher: Watcher | None = None, *, save_s: float = SAVE_S) -> Summary:
    """Predict, or go on where an earlier process was stopped or killed; the result is the same.

    Raises:
        DataError, ConfigError: see `scenes_of`; a raster that turns out broken when it is read.
        RunError: another process is at work on it, or it was begun with other settings.
    """
    watcher = watcher or Silent()
    scenes = scenes_of(plan)
    for line in (*plan.notes, *(n for s in scenes for n in (s.picture.note, plan.seam_note(s.picture)) if n)):
        watcher.say(line)
    journal = Journal(plan.request.out, plan.job())
    try:
        with bounded_cache(CACHE_BYTES):
            return _work(plan, scenes, journal, pool, watcher=watcher, save_s=save_s)
    finally:
        journal.close()


def _work(plan: Plan, scenes: list[Scene], journal: Journal, pool: Pool, *, watcher: Watcher, save_s: float) -> Summary:
    began = time.monotonic()
    for scene in scenes[int(journal.state.get("scene", 0)) :]:
        if not _Scene(plan, scene, journal, watcher, save_s).predict(pool):
            return _summary(plan, journal, (), began, finished=False)
    rasters = _publish(plan, scenes, journal)
    if plan.facts.guessed:
        for line in guesses(plan.facts.guessed, Counter(row["class"] for row in journal.rows("crowns"))):
            watcher.say(line)
    summary = _summary(plan, journal, rasters, began, finished=True)
    journal.remove()
    return summary


def _summary(plan: Plan, journal: Journal, rasters: tuple[Path, ...], began: float, *, finished: bool) -> Summary:
    plots: list[Row] = journal.state.get("plots", [])
    areas = [p["area_ha"] for p in plots]
    area_ha = None if not areas or any(a is None for a in areas) else sum(areas)
    crowns = sum(p["n_crowns"] for p in plots)
    return Summary(finished, plan.request.out, crowns, area_ha, rasters, time.monotonic() - began)


def _publish(plan: Plan, scenes: list[Scene], journal: Journal) -> tuple[Path, ...]:
    rasters: list[Path] = []
    if plan.request.raster_out is not None:
        plan.request.raster_out.mkdir(parents=True, exist_ok=True)
        for scene in scenes:
            rasters += Planes(journal.folder, scene.number, scene.picture).publish(plan.request.raster_out)
    layers = {
        "crowns": (CROWNS, journal.rows("crowns")),
        "plots": (PLOTS, journal.state["plots"]),
        "grid": (grid_fields(plan.spec.instance_classes), journal.rows("grid")),
    }
    write_map(plan.request.out, journal.folder, layers, scenes[0].picture.crs)
    return tuple(rasters)


class _Scene:
    """One picture at work."""

    def __init__(self, plan: Plan, scene: Scene, journal: Journal, watcher: Watcher, save_s: float) -> None:
        self._plan, self._scene, self._journal, self._watcher = plan, scene, journal, watcher
        self._save_s = save_s
        state = journal.state
        self._plots: list[Row] = list(state.get("plots", []))
        names = plan.spec.instance_classes
        stitcher = Stitcher(scene.grid, plan.merge_iou, plan.merge_containment)
        first_id = 1 + sum(p["n_crowns"] for p in self._plots)
        simplify_px = plan.request.simplify_px
        self._sweep = Sweep(scene.picture, stitcher, names, scene.area, simplify_px, first_id)
        self._warned = False
        self._next = 0
        if state.get("sweep") is not None:
            restore(self._sweep, state["sweep"])
            self._next = int(state["next"])
        wanted = plan.request.raster_out is not None
        self._planes = Planes(journal.folder, scene.number, scene.picture) if wanted else None

    def predict(self, pool: Pool) -> bool:
        """All windows that are left; False: asked to stop, and saved."""
        plan, scene = self._plan, self._scene
        reader = Reader(scene.picture.path.absolute(), scene.grid, plan.spec, scene.picture.gsd_m)
        reading = Reading.of(
            scene.grid.hw,
            plan.spec,
            plan.score,
            planes=self._planes is not None,
            area=scene.area,
            dense=plan.facts.land_cover,
        )
        saved = time.monotonic()
        for batch, looks in pool.looks(reader, reading, self._batches()):
            for look in looks:
                self._warn_when_full(look)
                self._keep(*self._sweep.add(look))
                if self._planes is not None:
                    self._planes.write(look)
            self._next = batch[-1].index + 1
            self._watcher.progress(scene.picture, self._done_px(batch[-1]), self._sweep.totals.crowns)
            stop = self._watcher.stop_asked()
            if stop or time.monotonic() - saved >= self._save_s:
                self._save()
                saved = time.monotonic()
            if stop:
                return False
        self._finish()
        return True

    def _warn_when_full(self, look: Look) -> None:
        """Once a raster."""
        if not self._warned and self._plan.full(look):
            self._warned = True
            x, y, width, height = look.window.rect
            self._watcher.say(
                f"'{self._scene.picture.name}': the window of {width} x {height} px at {x}, {y} has {len(look.crowns)} "
                f"crowns, as many as the network gives of one (validation.max_detections {self._plan.max_detections} a "
                f"{self._plan.spec.tile_size} px tile), so crowns may be missing there; raise --score, or train with a "
                f"larger validation.max_detections"
            )

    def _batches(self) -> Iterator[Windows]:
        """Windows that may show something, `batch_size` at a time; a new batch begins where a state was saved."""
        grid, area, batch = self._scene.grid, self._scene.area, list[Window]()
        blocks = Blocks(self._scene.picture.path, grid.hw)
        for index in range(self._next, len(grid)):
            window = grid.window(index)
            if area is not None and not area.intersects(shapely.box(*window.box)):
                continue
            if blocks.empty(window.rect):
                continue
            batch.append(window)
            if len(batch) == self._plan.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _done_px(self, window: Window) -> int:
        _, y0, x1, y1 = window.core
        return y0 * self._scene.grid.hw[1] + x1 * (y1 - y0)

    def _keep(self, crowns: list[Row], cells: list[Row]) -> None:
        self._journal.append("crowns", crowns)
        self._journal.append("grid", cells)

    def _save(self) -> None:
        self._sync()
        self._journal.save(
            {"scene": self._scene.number, "next": self._next, "sweep": to_plain(self._sweep), "plots": self._plots}
        )

    def _sync(self) -> None:
        """A state counts on the planes: they are on the disk before it is."""
        if self._planes is not None:
            self._planes.sync()

    def _finish(self) -> None:
        plan = self._plan
        self._keep(*self._sweep.finish())
        score, settings = json.dumps(dict(plan.score)), json.dumps(plan.settings())
        row = self._sweep.plot_row(
            score=score, checkpoint=plan.checkpoint, sha256=plan.sha256, settings=settings, guessed=plan.facts.guessed
        )
        if self._sweep.totals.known_px == 0:
            self._watcher.say(f"'{row['image']}' shows nothing but NoData where it was looked at: no crown, 0 ha")
        height, width = self._scene.grid.hw
        self._watcher.progress(self._scene.picture, height * width, self._sweep.totals.crowns)
        self._plots.append(row)
        self._sync()
        self._journal.save({"scene": self._scene.number + 1, "plots": self._plots})
