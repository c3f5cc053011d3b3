"""An image whose pixel values are its coordinates goes through prepare and windows: every crown stays where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_ortho import CENTRES, DEGREES, PLACES, UTM, discs, draw_ortho, to_map, write_labels

from cabruca.config.load import load_config
from cabruca.data.dataset import EvaluationWindows, TrainWindows, input_spec
from cabruca.data.prepare import Wanted, prepare
from cabruca.data.prepare_split import Shares
from cabruca.structures import Sample


def prepared(folder: Path, place: str, labels_crs: str | None = None, **profile: object) -> Path:
    crs, transform = PLACES[place]
    image = draw_ortho(folder / "ortho.tif", crs, transform, **profile)
    labels = write_labels(folder / "crowns.gpkg", to_map(discs(), transform), crs, to=labels_crs)
    shares = Shares(0.25, 0.2, 0, 40.0, 3)
    out = folder / "out"
    prepare(Wanted([str(image)], str(labels), str(out), tile_size=128, overlap=32, shares=shares))
    return out


def value_at(sample: Sample, xy: np.ndarray) -> np.ndarray:
    """The raster's column and row that the window's pixels show at a point of it (between pixel centres, linear)."""
    x, y = xy - 0.5
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    h, w = sample.image.shape[-2:]
    if not (0 <= x0 < w - 1 and 0 <= y0 < h - 1) or not bool(sample.valid[y0 : y0 + 2, x0 : x0 + 2].all()):
        return np.array([np.nan, np.nan])
    part = sample.image[:2, y0 : y0 + 2, x0 : x0 + 2].double().numpy() * 65535 / 64
    u, v = x - x0, y - y0
    return np.asarray(part @ np.array([1 - u, u]) @ np.array([1 - v, v]))


def off_by(sample: Sample) -> list[float]:
    """Distance of each crown of a window from the nearest that was drawn, px of the raster."""
    found = []
    centres = np.array(CENTRES)
    for centre, box in zip(sample.crowns.centre_xy_px.double().numpy(), sample.crowns.boxes_xyxy_px, strict=True):
        if box.min() <= 0 or float(box[2]) >= sample.image.shape[2] or float(box[3]) >= sample.image.shape[1]:
            continue  # cut by the window's edge
        seen = value_at(sample, centre)
        if np.isfinite(seen).all():
            found.append(float(np.hypot(*(centres - seen).T).min()))
    return found


@pytest.mark.parametrize("labels_crs", [None, DEGREES])
@pytest.mark.parametrize("place", list(PLACES))
def test_training_windows_show_each_crown_where_it_was_drawn(
    tmp_path: Path, place: str, labels_crs: str | None
) -> None:
    out = prepared(tmp_path, place, labels_crs)
    light = {"data.augmentation.brightness_contrast": 0.0, "data.windows_per_epoch": 24}
    config = load_config(out / "config.yaml", light)
    windows = TrainWindows(config, input_spec(config))
    off = [d for i in range(24) for d in off_by(windows.get(0, i))]
    assert len(off) > 40
    assert max(off) < 0.5


@pytest.mark.parametrize("place", list(PLACES))
def test_validation_windows_lie_where_their_ground_says(tmp_path: Path, place: str) -> None:
    out = prepared(tmp_path, place, UTM if place not in ("feet", "degrees") else DEGREES)
    config = load_config(out / "config.yaml")
    data = config.data
    windows = EvaluationWindows(data.val_dir, data.val_annotations, input_spec(config), max_side_px=128, overlap=32,
                                min_visible_share=0.3, cache_mb=64)  # fmt: skip
    _, transform = PLACES[place]
    pixel_m = windows.pictures[0].gsd_m or windows.get(0).gsd_m
    assert pixel_m is not None
    seen = 0
    for sample in (windows.get(i) for i in range(len(windows))):
        assert sample.ground is not None
        plane = windows.planes[sample.ground.plane]
        for point in (np.array([20.5, 30.5]), np.array([64.0, 41.5])):
            column, row = value_at(sample, point)
            if np.isfinite(column):
                x, y = transform * (column, row)
                at = sample.ground.to_plane(point[None])[0]
                assert at == pytest.approx(np.multiply((x, y), plane.metres_xy), abs=0.5 * pixel_m)
                seen += 1
        assert all(d < 0.5 for d in off_by(sample))
    assert seen > 3


def test_masks_lie_on_their_crowns(tmp_path: Path) -> None:
    out = prepared(tmp_path, "turned")
    config = load_config(out / "config.yaml", {"data.augmentation.enabled": False})
    windows = TrainWindows(config, input_spec(config))
    seen = 0
    for sample in (windows.get(1, i) for i in range(8)):
        for k in range(len(sample.crowns)):
            x, y, crop = sample.crowns.masks.crop(k)
            if float(crop.sum()) < 360:  # a whole crown has pi * 11^2 = 380 px
                continue
            rows, columns = np.nonzero(crop.numpy())
            at = sample.image[:2, torch.from_numpy(rows + y), torch.from_numpy(columns + x)].double().mean(dim=1)
            middle = at.numpy() * 65535 / 64
            assert np.hypot(*(np.array(CENTRES) - middle).T).min() < 0.5
            seen += 1
    assert seen > 10
