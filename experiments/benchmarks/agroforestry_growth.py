"""How the agroforestry metrics grow with the number of trees: `python experiments/benchmarks/agroforestry_growth.py`.

Trees stand on a shaken lattice, one in ten a shade tree, cut into windows of 1,000 trees as a validation grid is. The
found crowns are the true ones moved a little; a tenth is missed, some species are mistaken. Every crown has a mask.
Printed: seconds for all metrics, with and without an inventory of as many trees, and the growth between the sizes.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch

from cabruca.crops import CroppedMasks
from cabruca.ground import Ground, Inventory
from cabruca.metrics.agroforestry import AgroforestrySettings, agroforestry_metrics
from cabruca.metrics.canopy import Cover, squares_of
from cabruca.metrics.survey import Survey
from cabruca.metrics.trees import Trees, trees_of_window

SPACING_M, GSD_M, ROWS, COLUMNS = 3.0, 0.1, 25, 40
NAMES = ("cacao_tree", "shade_tree")
SIZES = (1_000, 10_000, 100_000)


def window(k: int, across: int) -> tuple[Survey, Inventory]:
    """Window `k` of a farm that is `across` windows wide: 1,000 trees, and the inventory of them."""
    rng = np.random.default_rng(k)
    step = SPACING_M / GSD_M
    height, width = int(ROWS * step), int(COLUMNS * step)
    row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    centre = np.stack([column, row], axis=1) * step + step / 2 + rng.normal(0, step / 8, (len(row), 2))
    labels = 1 + (rng.random(len(row)) < 0.1).astype(np.int64)
    radius = rng.uniform(0.35, 0.55, len(row)) * step
    farm = Ground("farm", (GSD_M, 0.0, 0.0, 0.0, GSD_M, 0.0), True, "1", (0, 0), (10**6, 10**6))
    ground = farm.at((k % across) * width, (k // across) * height)
    moved = centre + rng.normal(0, 2, centre.shape)
    called = np.where(rng.random(len(row)) < 0.05, 3 - labels, labels)
    kept = np.flatnonzero(rng.random(len(row)) < 0.9)
    found = discs(ground, moved[kept], radius[kept], called[kept])
    cells = [rng.random((8, 12)) < share for share in (2.0, 0.6, 0.6, 0.1, 0.1)]
    coarse = Ground("farm", (height / 8 * GSD_M, 0.0, ground.affine[2], 0.0, height / 8 * GSD_M, ground.affine[5]),
                    True, "1", (0, 0), (8, 12))  # fmt: skip
    corners = np.array([[[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]]])
    survey = Survey(
        ground=ground,
        found=found,
        true=discs(ground, centre, radius, labels),
        squares=squares_of(Cover(*cells), coarse, (10.0, 10.0)),
        outline=ground.to_plane(corners[0])[None],
        grain=0.0,
    )
    listed = ground.to_plane(centre + rng.normal(0, 5, centre.shape))
    return survey, Inventory(labels, listed, np.full(len(labels), np.nan))


def discs(ground: Ground, centre: np.ndarray, radius: np.ndarray, labels: np.ndarray) -> Trees:
    crops = []
    for (x, y), r in zip(centre, radius, strict=True):
        x0, y0, x1, y1 = (math.floor(x - r), math.floor(y - r), math.ceil(x + r), math.ceil(y + r))
        rows, columns = np.mgrid[y0:y1, x0:x1] + 0.5
        crops.append((x0, y0, ((columns - x) ** 2 + (rows - y) ** 2 <= r * r).astype(np.uint8)))
    return trees_of_window(
        ground,
        boxes_xyxy_px=np.concatenate([centre - radius[:, None], centre + radius[:, None]], axis=1),
        labels=labels,
        scores=np.full(len(labels), 0.9),
        centre_xy_px=centre,
        masks=CroppedMasks.from_crops(crops),
        diameter_px=2 * radius,
        head_diameter_px=None,
    )


def farm(trees: int) -> tuple[list[Survey], Inventory]:
    """A farm of about so many trees, in thousands, and its inventory."""
    count = max(1, round(trees / (ROWS * COLUMNS)))
    across = math.ceil(math.sqrt(count))
    parts = [window(k, across) for k in range(count)]
    lists = [i for _, i in parts]
    fields = [np.concatenate([getattr(i, name) for i in lists]) for name in ("labels", "xy_m", "diameter_m")]
    return [s for s, _ in parts], Inventory(*fields)


def seconds(surveys: list[Survey], inventory: dict[str, Inventory] | None) -> float:
    settings = AgroforestrySettings(NAMES, shade_radius_m=12.0)
    start = time.perf_counter()
    agroforestry_metrics(surveys, settings, inventory=inventory)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    torch.set_num_threads(1)
    print(f"{'trees':>9} {'metrics, s':>11} {'with inventory, s':>18} {'growth of time / of trees':>26}")
    before: tuple[int, float] | None = None
    for size in parser.parse_args().sizes:
        surveys, inventory = farm(size)
        trees = sum(len(s.true) for s in surveys)
        took = min(seconds(surveys, None) for _ in range(2))
        beside = seconds(surveys, {"farm": inventory})
        growth = "" if before is None else f"{took / before[1]:.1f} / {trees / before[0]:.0f}"
        print(f"{trees:>9,} {took:>11.3f} {beside:>18.3f} {growth:>26}", flush=True)
        before = (trees, took)


if __name__ == "__main__":
    main()
