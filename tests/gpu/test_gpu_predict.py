"""A map made on a GPU is the map made on a CPU; its memory does not follow the picture's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
from drawn_farm import farm_config
from maps import layer

from cabruca.data.synthetic import draw_plot
from cabruca.errors import OutOfMemory
from cabruca.launch import predict, train
from cabruca.served_model import ServedModel

WELL = 0.9
"""IoU from which on two outlines are the same crown's."""


@pytest.fixture(scope="module")
def taught(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of a short training on a drawn plot, made on the device, and a picture it never saw."""
    folder = tmp_path_factory.mktemp("taught")
    files = draw_plot(folder / "plot", size_px=384, gsd_m=0.1, seed=3)
    changes = {
        "data.train_dir": str(files.images_dir),
        "data.val_dir": str(files.images_dir),
        "data.train_annotations": str(files.train_annotations),
        "data.val_annotations": str(files.val_annotations),
        "data.tile_size": 128,
        "data.windows_per_epoch": 24 if device.type == "cuda" else 8,
        "training.num_epochs": 6 if device.type == "cuda" else 1,
        "model.pretrained": "none",
        "experiment_name": "taught",
        "device": device.type,
    }
    assert train(farm_config(folder, folder, changes), quiet=True).state == "finished"
    return folder / "taught" / "checkpoints" / "checkpoint_latest.pth", files.val_image


def crowns(checkpoint: Path, picture: Path, out: Path, device: str, **options: Any) -> tuple[dict[str, Any], Any]:
    assert predict(checkpoint, picture, out, device=device, score=0.05, **options).finished
    return layer(out)


def matched(ours: Any, theirs: Any) -> int:
    """Outlines of `ours` that one of `theirs` agrees with."""
    tree = shapely.STRtree(theirs)
    found = 0
    for one in ours:
        near = theirs[tree.query(one)]
        shared = shapely.area(shapely.intersection(near, one)) / shapely.area(shapely.union(near, one))
        found += bool((shared >= WELL).any())
    return found


def noise(path: Path, side: int) -> Path:
    """A raster of `side` px."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, side, side), dtype=np.uint8)
    profile: dict[str, Any] = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8"}
    place = rasterio.Affine(0.1, 0, 500_000, 0, -0.1, 8_360_000)
    with rasterio.open(path, "w", **profile, tiled=True, crs="EPSG:31984", transform=place) as out:
        out.write(pixels)
    return path


@pytest.mark.usefixtures("exact_fp32")
def test_the_crowns_are_those_of_the_cpu(device: torch.device, taught: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, picture = taught
    (ours, here), (theirs, there) = (
        crowns(checkpoint, picture, tmp_path / f"{i}.gpkg", name) for i, name in enumerate((device.type, "cpu"))
    )
    assert len(there) >= 5, "the network found nothing to compare"
    assert abs(len(here) - len(there)) <= max(1, 0.1 * len(there))
    agreed = matched(here, there)
    print(f"{len(here)} crowns here, {len(there)} on the CPU, {agreed} agree")
    assert agreed >= 0.9 * len(here)
    assert sorted(ours["score"])[-5:] == pytest.approx(sorted(theirs["score"])[-5:], abs=0.01)


def test_memory_does_not_follow_the_pictures_size(
    cuda: torch.device, taught: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint, _ = taught
    peaks = []
    for side in (512, 2048):
        picture = noise(tmp_path / f"{side}.tif", side)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        assert predict(checkpoint, picture, tmp_path / f"{side}.gpkg", device="cuda", score=0.5).finished
        peaks.append(torch.cuda.max_memory_allocated() / 2**20)
    print("MB:", [round(peak) for peak in peaks])
    assert peaks[1] < 1.3 * peaks[0]


def test_windows_that_do_not_fit_are_told(cuda: torch.device, taught: tuple[Path, Path], tmp_path: Path) -> None:
    large = noise(tmp_path / "large.tif", 2048)
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(200 * 2**20 / total)
    try:
        with pytest.raises(OutOfMemory) as raised:
            predict(taught[0], large, tmp_path / "large.gpkg", device="cuda", tile_size=2048, batch_size=1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert str(raised.value).startswith("out of memory on cuda (")
    assert "give --tile-size" in str(raised.value)


def test_the_served_model_answers_from_the_device(cuda: torch.device, taught: tuple[Path, Path]) -> None:
    """As a model of MLflow: it takes the GPU by itself."""
    served = ServedModel(taught[0])
    assert next(served._model.parameters()).device.type == "cuda"
    with rasterio.open(taught[1]) as file:
        pixels = file.read().astype(np.float32)[None, :, :128, :96]
    found = served.predict(pixels, {"score_threshold": 0.05})
    served._device = torch.device("cpu")
    served._model.to("cpu")
    expected = served.predict(pixels, {"score_threshold": 0.05})
    assert isinstance(found, pd.DataFrame)
    assert abs(len(found) - len(expected)) <= max(1, 0.1 * len(expected))
    assert sorted(found["score"])[-3:] == pytest.approx(sorted(expected["score"])[-3:], abs=0.05)
