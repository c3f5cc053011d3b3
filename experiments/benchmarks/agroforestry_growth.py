"""How the agroforestry metrics grow with the number of trees: `python experiments/benchmarks/agroforestry_growth.py`.

Trees stand on a shaken lattice, one in ten a shade tree, on overlapping pictures of about 1,150 trees each, every tenth
with a slanted edge of NoData. The found crowns are the true ones moved a little; a tenth is missed, some species are
mistaken. Every crown has a mask.
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
STEP = SPACING_M / GSD_M
HEIGHT, WIDTH, OUTLINE_ROWS = int(ROWS * STEP), int(COLUMNS * STEP), 100
NAMES = ("cacao_tree", "shade_tree")
SIZES = (1_000, 10_000, 100_000)


def block(k: int, across: int) -> dict[str, np.ndarray]:
    """Block `k` of a farm that is `across` blocks wide: 1,000 trees in px of the farm, and what is found of them."""
    rng = np.random.default_rng(k)
    corner = np.array([(k % across) * WIDTH, (k // across) * HEIGHT])
    row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    centre = np.stack([column, row], axis=1) * STEP + STEP / 2 + rng.normal(0, STEP / 8, (len(row), 2)) + corner
    labels = 1 + (rng.random(len(row)) < 0.1).astype(np.int64)
    return {
        "centre": centre,
        "labels": labels,
        "radius": rng.uniform(0.35, 0.55, len(row)) * STEP,
        "moved": centre + rng.normal(0, 2, centre.shape),
        "called": np.where(rng.random(len(row)) < 0.05, 3 - labels, labels),
        "found": rng.random(len(row)) < 0.9,
        "listed": centre + rng.normal(0, 5, centre.shape),
    }


def picture(k: int, across: int, blocks: list[dict[str, np.ndarray]]) -> Survey:
    """The picture of block `k`, which goes on for two trees to the right and below: its neighbours show them too."""
    near = [n for n in {k, k + 1, k + across, k + across + 1} if n < len(blocks)]
    own = {name: np.concatenate([blocks[n][name] for n in near]) for name in blocks[k]}
    low = np.array([(k % across) * WIDTH, (k // across) * HEIGHT])
    size = np.array([WIDTH, HEIGHT]) + 2 * int(STEP)
    rng = np.random.default_rng(10**6 + k)
    left, top = (low * GSD_M).tolist()
    ground = Ground("farm", (GSD_M, 0.0, left, 0.0, GSD_M, top), True, str(k), (0, 0), (int(size[1]), int(size[0])))
    shown = np.all((own["centre"] >= low) & (own["centre"] < low + size), axis=1)
    seen = shown & own["found"]
    cells = [rng.random((8, 12)) < share for share in (2.0, 0.6, 0.6, 0.1, 0.1)]
    cell = float(size[1]) / 8 * GSD_M
    coarse = Ground("farm", (cell, 0.0, left, 0.0, cell, top), True, str(k), (0, 0), (8, 12))
    rows = np.arange(OUTLINE_ROWS if k % 10 == 0 else 1)
    deep = size[1] / len(rows)
    ends = size[0] - (len(rows) - 1 - rows) * 4.0  # every tenth picture has NoData beside a slanted edge
    outline = np.stack([
        np.stack([np.stack([x, y], axis=1) for x, y in ((0 * ends, rows * deep), (ends, rows * deep),
                  (ends, (rows + 1) * deep), (0 * ends, (rows + 1) * deep))], axis=1),
    ])[0]  # fmt: skip
    return Survey(
        ground=ground,
        found=discs(ground, (own["moved"] - low)[seen], own["radius"][seen], own["called"][seen]),
        true=discs(ground, (own["centre"] - low)[shown], own["radius"][shown], own["labels"][shown]),
        squares=squares_of(Cover(*cells), coarse, (10.0, 10.0)),
        outline=ground.to_plane(outline.reshape(-1, 2)).reshape(-1, 4, 2),
        grain=deep * GSD_M if len(rows) > 1 else 0.0,
        known_area=float((ends * deep).sum()) * ground.pixel_area,
        canopy_seen=False,
    )


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
    blocks = [block(k, across) for k in range(count)]
    labels, listed = (np.concatenate([b[name] for b in blocks]) for name in ("labels", "listed"))
    inventory = Inventory(labels, listed * GSD_M, np.full(len(labels), np.nan))
    return [picture(k, across, blocks) for k in range(count)], inventory


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
        trees = len(inventory)
        took = min(seconds(surveys, None) for _ in range(2))
        beside = seconds(surveys, {"farm": inventory})
        growth = "" if before is None else f"{took / before[1]:.1f} / {trees / before[0]:.0f}"
        print(f"{trees:>9,} {took:>11.3f} {beside:>18.3f} {growth:>26}", flush=True)
        before = (trees, took)


if __name__ == "__main__":
    main()
