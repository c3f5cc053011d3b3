"""What predict costs beside its network, and whether its memory grows with the raster.

Speed: megapixels of windows per second of a whole `predict` (reading, stitching, outlining, writing) beside the same
windows, read before, through the network alone; in one process, alternating. Asked: at least 0.85.
Memory: peak resident set of a predict of a raster and of one with four times its pixels, each in a process of its own.
Asked: at most 1.05.

    python experiments/benchmarks/predict_speed.py --checkpoint CKPT --image ORTHO.tif [--side 1024] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from cabruca.evaluation import load_trained
from cabruca.predict.begin import make_request
from cabruca.predict.network import TrainedNetwork
from cabruca.predict.plan import Plan, make_plan
from cabruca.predict.pool import InProcess
from cabruca.predict.reading import Reader
from cabruca.predict.run import run
from cabruca.predict.scenes import scenes_of
from cabruca.runtime import Runtime, set_threads, thread_budget
from cabruca.structures import collate


def mosaic(image: Path, out: Path, height: int, width: int) -> Path:
    """A tiled GeoTIFF of this size: the middle of `image`, repeated (mirrored) where it is smaller."""
    with rasterio.open(image) as source:
        h, w = min(source.height, height), min(source.width, width)
        middle = Window((source.width - w) // 2, (source.height - h) // 2, w, h)
        pixels = source.read(window=middle)
        profile = {**source.profile, "height": height, "width": width, "tiled": True, "blockxsize": 256,
                   "blockysize": 256, "compress": "deflate", "nodata": None, "transform": source.transform}  # fmt: skip
    for axis, length in ((1, height), (2, width)):
        while pixels.shape[axis] < length:
            pixels = np.concatenate([pixels, np.flip(pixels, axis)], axis)
    with rasterio.open(out, "w", **profile) as to:
        to.write(pixels[:, :height, :width])
    return out


def planned(checkpoint: Path, image: Path, out: Path) -> tuple[Plan, TrainedNetwork]:
    trained = load_trained(checkpoint)
    request = make_request(image, out, {"score": 0.5, "gsd": "native"})
    set_threads(thread_budget(1))
    plan = make_plan(request, trained.config, trained.spec, trained.facts, checkpoint=checkpoint)
    return plan, TrainedNetwork(trained, Runtime.single("cpu"))


def speed(checkpoint: Path, image: Path, side: int, rounds: int, folder: Path) -> None:
    path = mosaic(image, folder / "speed.tif", side, side)
    ratios = []
    for k in range(rounds):
        plan, network = planned(checkpoint, path, folder / f"{k}.gpkg")
        scene = scenes_of(plan)[0]
        windows = list(scene.grid)
        reader = Reader(path, scene.grid, plan.spec, scene.picture.gsd_m)
        size = plan.batch_size
        read = [reader.read(windows[i : i + size]) for i in range(0, len(windows), size)]
        batches = [collate([p.sample for p in part]) for part in read]
        network(batches[0])
        began = time.perf_counter()
        for batch in batches:
            network(batch)
        alone = time.perf_counter() - began
        began = time.perf_counter()
        done = run(plan, InProcess(network))
        whole = time.perf_counter() - began
        px = len(windows) * plan.tile_size**2 / 1e6
        ratios.append(alone / whole)
        print(f"round {k}: {len(windows)} windows of {plan.tile_size} px, overlap {scene.grid.overlap}; network "
              f"alone {px / alone:.3f} Mpx/s, predict {px / whole:.3f} Mpx/s ({side**2 / 1e6 / whole:.3f} of ground), "
              f"ratio {alone / whole:.3f}; {done.crowns} crowns", flush=True)  # fmt: skip
    print(f"speed: predict / network alone {np.mean(ratios):.3f} (asked 0.85)", flush=True)


def peak_of(checkpoint: Path, image: Path, out: Path) -> tuple[float, int]:
    """MB at the peak and crowns, in a process of its own."""
    text = subprocess.run(
        [sys.executable, __file__, "--checkpoint", checkpoint, "--image", image, "--child", out],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = json.loads(text.splitlines()[-1])
    return found["mb"], found["crowns"]


def child(checkpoint: Path, image: Path, out: Path) -> None:
    plan, network = planned(checkpoint, image, out)
    done = run(plan, InProcess(network))
    print(json.dumps({"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "crowns": done.crowns}))


def memory(checkpoint: Path, image: Path, side: int, folder: Path) -> None:
    peaks = []
    for times in (1, 2):
        path = mosaic(image, folder / f"{times}.tif", side * times, side * times)
        peak, crowns = peak_of(checkpoint, path, folder / f"m{times}.gpkg")
        peaks.append(peak)
        print(f"memory: {side * times} x {side * times} px, {crowns} crowns: peak {peak:.0f} MB", flush=True)
    print(f"memory: 4 x the pixels {peaks[1] / peaks[0]:.3f} x the peak (asked 1.05)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.checkpoint, given.image, given.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        speed(given.checkpoint, given.image, given.side, given.rounds, Path(folder))
        memory(given.checkpoint, given.image, given.side, Path(folder))


if __name__ == "__main__":
    main()
