"""What seams cost with a network that makes no mistake: counted crowns beside drawn ones, for overlaps below and above
the largest crown, with masks and with boxes alone.

    python experiments/benchmarks/predict_seams.py [--crowns 400] [--largest 40] [--tile 128]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from maps import layer
from perfect import Disc, Perfect, plan_of, write_coordinates

from cabruca.predict.pool import InProcess
from cabruca.predict.run import run

HW = (800, 900)


def drawn(count: int, largest: float, *, apart: bool) -> list[Disc]:
    """Discs with a radius from a quarter to half of `largest`."""
    rng, discs = np.random.default_rng(0), list[Disc]()
    for _ in range(200 * count):
        new = Disc(
            float(rng.uniform(0, HW[1])), float(rng.uniform(0, HW[0])), float(rng.uniform(largest / 4, largest / 2))
        )
        if not apart or all(np.hypot(new.x - d.x, new.y - d.y) > new.radius + d.radius + 1 for d in discs):
            discs.append(new)
        if len(discs) == count:
            break
    return discs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crowns", type=int, default=400)
    parser.add_argument("--largest", type=float, default=40)
    parser.add_argument("--tile", type=int, default=128)
    given = parser.parse_args()
    print("| crowns | found by | overlap / largest | counted | error | area error |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = write_coordinates(folder / "a.tif", HW)
        for apart in (True, False):
            discs = drawn(given.crowns, given.largest, apart=apart)
            area = sum(int(d.mask(*HW).sum()) for d in discs)
            for masks in (True, False):
                network = Perfect(discs, HW, masks=masks)
                for share in (0.0, 0.1, 0.25, 0.5, 0.75, 1.05):
                    out = folder / f"{apart}{masks}{share}.gpkg"
                    overlap = round(share * given.largest)
                    run(plan_of([image], out, tile_size=given.tile, overlap=overlap, simplify_px=0), InProcess(network))
                    _, shapes = layer(out)
                    wrong = (len(shapes) - len(discs)) / len(discs)
                    lost = f"{sum(s.area for s in shapes) / area - 1:+.4f}" if masks else "-"
                    print(f"| {'apart' if apart else 'overlapping'}, {len(discs)} | {'masks' if masks else 'boxes'} | "
                          f"{share:g} | {len(shapes)} | {wrong:+.4f} | {lost} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
