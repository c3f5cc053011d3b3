"""Seams: with a network that makes no mistake, any window gives exactly the drawn crowns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from maps import layer
from perfect import Disc, Perfect, plan_of, write_coordinates

from cabruca.predict.pool import InProcess
from cabruca.predict.run import run

HW = (230, 260)


def drawn(count: int, largest: float, *, seed: int, apart: bool = True, hw: tuple[int, int] = HW) -> list[Disc]:
    """Discs with a radius from 3 px to half of `largest`, `apart` from each other or not."""
    rng, discs = np.random.default_rng(seed), list[Disc]()
    for _ in range(50 * count):
        r = float(rng.uniform(3, largest / 2))
        new = Disc(float(rng.uniform(0, hw[1])), float(rng.uniform(0, hw[0])), r, int(rng.integers(1, 3)))
        if not apart or all(np.hypot(new.x - d.x, new.y - d.y) > new.radius + d.radius + 2 for d in discs):
            discs.append(new)
        if len(discs) == count:
            break
    return discs


def largest_px(discs: Sequence[Disc], hw: tuple[int, int] = HW) -> int:
    """The largest extent of a drawn crown, px."""
    sides = [max(np.ptp(a) + 1 for a in np.nonzero(d.mask(*hw))) for d in discs]
    return int(max(sides))


def found(folder: Path, discs: Sequence[Disc], *, hw: tuple[int, int] = HW, masks: bool = True, **options: Any) -> Any:
    image, out = write_coordinates(folder / "a.tif", hw), folder / "a.gpkg"
    plan = plan_of([image], out, simplify_px=0, **options)
    run(plan, InProcess(Perfect(discs, hw, masks=masks)))
    return layer(out)


def areas_of(discs: Sequence[Disc], hw: tuple[int, int] = HW) -> list[tuple[int, float, float, int]]:
    """Label, centroid and area of every drawn crown, sorted."""
    rows = []
    for d in discs:
        ys, xs = np.nonzero(d.mask(*hw))
        rows.append((d.label, round(float(xs.mean() + 0.5), 6), round(float(ys.mean() + 0.5), 6), len(xs)))
    return sorted(rows)


def rows_of(values: dict[str, list[Any]], shapes: Any) -> list[tuple[int, float, float, int]]:
    labels = {"cacao_tree": 1, "shade_tree": 2}
    return sorted(
        (labels[c], round(x, 6), round(y, 6), round(s.area))
        for c, x, y, s in zip(values["class"], values["centroid_x"], values["centroid_y"], shapes, strict=True)
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tile=st.integers(64, 240), more=st.integers(0, 40), seed=st.integers(0, 10_000), batch=st.integers(1, 5))
def test_any_window_gives_the_drawn_crowns(tile: int, more: int, seed: int, batch: int) -> None:
    discs = drawn(25, 40, seed=seed)
    overlap = min(largest_px(discs) + more, tile - 20)  # a step of few px is thousands of windows
    with tempfile.TemporaryDirectory() as folder:
        got = found(Path(folder), discs, tile_size=tile, overlap=overlap, batch_size=batch)
    assert rows_of(*got) == areas_of(discs)


@pytest.mark.parametrize("seed", range(6))
def test_crowns_that_overlap_stay_apart(tmp_path: Path, seed: int) -> None:
    discs = drawn(60, 40, seed=seed, apart=False)
    got, _ = found(tmp_path, discs, tile_size=96, overlap=largest_px(discs))
    assert len(got["class"]) == len(discs)


@pytest.mark.parametrize("seed", range(6))
def test_boxes_are_counted_once(tmp_path: Path, seed: int) -> None:
    discs = drawn(25, 40, seed=seed)
    values, _ = found(tmp_path, discs, tile_size=96, overlap=largest_px(discs) + 8, masks=False)
    assert len(values["class"]) == len(discs)
    assert set(values["shape"]) == {"box"}


def test_crowns_larger_than_the_overlap_are_put_together(tmp_path: Path) -> None:
    """No window sees them whole: the parts are one crown, exactly, as long as the windows share a pixel of it."""
    discs = [Disc(96, 60, 30), Disc(130, 170, 40, 2)]
    got = found(tmp_path, discs, tile_size=96, overlap=20)
    assert rows_of(*got) == areas_of(discs)
