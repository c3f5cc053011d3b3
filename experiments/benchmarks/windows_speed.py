"""Windows a second from one GeoTIFF: our dataset path, raw decoding of the same windows, and TorchGeo's sampler.

    python experiments/benchmarks/windows_speed.py [--image ortho.tif --labels crowns.gpkg --map '*=cacao_tree']

Without --image a tiled, deflate-compressed RGB raster of 6,144 x 6,144 px with 3,000 round crowns is drawn. All arms
read windows of one size in one process and one thread, in turn, round after round; ratios are of one round.

- raw: `rasterio` open once, `read` of each window, bands 1 to 3.
- ours, pixels: the same windows through `PictureSet` to a scaled float tensor with its validity and labelled ground.
- ours, sample: the whole `TrainWindows.get` without augmentation: crowns, masks, land cover, diameters, density too.
  Bitmaps of crowns are painted once and kept, so this is as from the second epoch on.
- torchgeo: `RasterDataset` with `RandomGeoSampler`, as its documentation shows it, windows of the same size.

TorchGeo is no dependency; its arm is left out where it is not importable. To have it for this script alone:

    pip install --target /tmp/torchgeo --no-deps torchgeo einops geopandas pyproj kornia kornia_rs \\
        lightning lightning-utilities pytorch-lightning torchmetrics certifi
    PYTHONPATH=/tmp/torchgeo python experiments/benchmarks/windows_speed.py

Asked: ours at least 0.9 of raw, and at least 2 times torchgeo.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window

from cabruca.config.load import load_config
from cabruca.data.augment import Geometry
from cabruca.data.dataset import TrainWindows, input_spec
from cabruca.data.prepare import Wanted, prepare
from cabruca.data.sampling import SampleMaker

SIDE, CROWNS = 6144, 3000


def draw(folder: Path) -> tuple[str, str]:
    """A raster with the texture of a canopy, roughly: smooth fields and noise, so that deflate has its work."""
    rng = np.random.default_rng(0)
    image, labels = folder / "ortho.tif", folder / "crowns.gpkg"
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8", "tiled": True,
               "blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 2, "interleave": "pixel",
               "crs": "EPSG:31984", "transform": from_origin(478512.0, 8363720.0, 0.06, 0.06)}  # fmt: skip
    with rasterio.open(image, "w", **profile) as file:
        for y in range(0, SIDE, 512):
            for x in range(0, SIDE, 512):
                coarse = rng.integers(40, 180, (3, 33, 33)).repeat(16, 1).repeat(16, 2)[:, :512, :512]
                pixels = coarse + rng.normal(0, 6, (3, 512, 512))
                file.write(pixels.clip(0, 255).astype(np.uint8), window=Window(x, y, 512, 512))
    xy = rng.uniform(60, SIDE - 60, (CROWNS, 2)) * (0.06, -0.06) + (478512.0, 8363720.0)
    shapes = shapely.buffer(shapely.points(xy), rng.uniform(1, 3, CROWNS))
    pyogrio.raw.write(labels, shapely.to_wkb(shapes), [np.array(["cacao_tree"] * CROWNS, dtype=object)], ["species"],
                      crs="EPSG:31984", driver="GPKG", geometry_type="Polygon")  # fmt: skip
    return str(image), str(labels)


def torchgeo_arm(image: str, size: int, count: int, seed: int) -> Callable[[], int] | None:
    try:
        from torchgeo.datasets import RasterDataset
        from torchgeo.samplers import RandomGeoSampler, Units
    except ImportError as error:
        print(f"torchgeo is not importable ({error}); its arm is left out")
        return None
    dataset = RasterDataset(paths=image)

    def run() -> int:
        generator = torch.Generator().manual_seed(seed)
        sampler = RandomGeoSampler(dataset, size=size, length=count, units=Units.PIXELS, generator=generator)
        return sum(int(dataset[place]["image"].shape[-1] >= size - 1) for place in sampler)

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--image")
    parser.add_argument("--labels")
    parser.add_argument("--map", default="*=cacao_tree")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["GDAL_CACHEMAX"] = "16"  # MB; read by GDAL at its first block: windows are decoded, not remembered
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, labels = (args.image, args.labels) if args.image else draw(folder)
        value, _, target = args.map.rpartition("=")
        out = folder / "data"
        prepare(Wanted([image], labels, str(out), class_map={value: target} if args.image else {},
                       tile_size=args.size))  # fmt: skip
        config = load_config(out / "config.yaml", {"data.augmentation.enabled": False})
        windows = TrainWindows(config, input_spec(config))
        run(windows, image, args)


def run(windows: TrainWindows, image: str, args: argparse.Namespace) -> None:
    size, count = args.size, args.windows
    maker = SampleMaker(windows.pictures, 0.3)

    def sample(epoch: int) -> list[tuple[int, int, int]]:
        """Picture number and corner on it of each window of an epoch."""
        ids = {p.image.id: k for k, p in enumerate(windows.pictures.pictures)}
        found = [windows.get(epoch, i).picture.split(":") for i in range(count)]
        return [(ids[int(ident)], int(x), int(y)) for ident, y, x in found]

    places = [sample(epoch) for epoch in range(args.rounds + 1)]
    corners = [p.image.window[:2] for p in windows.pictures.pictures]
    source = rasterio.open(image)

    def raw(r: int) -> None:
        for k, x, y in places[r]:
            source.read((1, 2, 3), window=Window(x + corners[k][0], y + corners[k][1], size, size))

    def pixels(r: int) -> None:
        for k, x, y in places[r]:
            geometry = Geometry((x, y, size, size), (size, size))
            _, valid = maker.image(k, geometry)
            maker.labelled(k, geometry, valid)

    def whole(r: int) -> None:
        for i in range(count):
            windows.get(r, i)

    arms: dict[str, Callable[[int], object]] = {"raw": raw, "ours, pixels": pixels, "ours, sample": whole}
    other = torchgeo_arm(image, size, count, 0)
    if other is not None:
        arms["torchgeo"] = lambda _: other()
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for r in range(args.rounds + 1):
        for name, arm in arms.items():
            begin = time.perf_counter()
            arm(r)
            if r > 0:  # the first round warms the page cache up
                rates[name].append(count / (time.perf_counter() - begin))
    print(f"{image}: windows of {size} px, {count} a round, {args.rounds} rounds")
    for name, own in rates.items():
        ratio = statistics.median(a / b for a, b in zip(own, rates["raw"], strict=True))
        print(f"{name:>14}: {statistics.median(own):7.1f} windows/s, {ratio:.2f} of raw (rounds "
              f"{min(own):.1f} to {max(own):.1f})")  # fmt: skip
    if "torchgeo" in rates:
        for name in ("ours, pixels", "ours, sample"):
            each = [a / b for a, b in zip(rates[name], rates["torchgeo"], strict=True)]
            print(f"{name}: {statistics.median(each):.2f} times torchgeo (rounds {min(each):.2f} to {max(each):.2f})")


if __name__ == "__main__":
    main()
