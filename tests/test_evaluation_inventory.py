"""`evaluate` on georeferenced ground, with an inventory beside it, and training that asks for one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import LIGHT
from drawn_data import CLASSES, box, write_raster
from rasterio.transform import from_origin

from cabruca.config.schema import Config, DataConfig, ValidationConfig
from cabruca.data.dataset import input_spec
from cabruca.errors import DataError
from cabruca.evaluation import evaluate
from cabruca.measuring import metric_names
from cabruca.model.build import build_model
from cabruca.task import CabrucaTask
from cabruca.train.checkpoint import FORMAT_VERSION

PLACE = {"crs": "EPSG:31984", "transform": from_origin(478512.0, 8363720.0, 0.1, 0.1)}
TREES = [{"species": "cacao", "coordinates": [478516.0, 8363716.0]}]


def ground(folder: Path, *, placed: bool = True, **validation: object) -> tuple[Config, Path]:
    """One picture of 128 px with two boxes, and its annotation file."""
    bands = np.random.default_rng(0).integers(0, 255, (3, 128, 128), dtype=np.uint8)
    write_raster(folder / "a.tif", bands, **(PLACE if placed else {}))
    image = {"id": 1, "file_name": "a.tif", "height": 128, "width": 128}
    rows = [box(20, 30, 40, 20), box(80, 90, 20, 30, ident=2, category=2)]
    truth = folder / "truth.json"
    truth.write_text(json.dumps({"images": [image], "annotations": rows, "categories": CLASSES}))
    sets = {f"{s}_dir": str(folder) for s in ("train", "val")} | {
        f"{s}_annotations": str(truth) for s in ("train", "val")
    }
    data = DataConfig(**sets, overlap=16, tile_size=64)  # type: ignore[arg-type]
    model = LIGHT.model_copy(update={"pretrained": "none"})
    return Config(model=model, data=data, validation=ValidationConfig(**validation)), truth  # type: ignore[arg-type]


def test_evaluate_gives_them_with_the_inventory_and_says_so_without_a_scale(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, truth = ground(tmp_path)
    spec = input_spec(config)
    state = {"format_version": FORMAT_VERSION, "model": build_model(config, spec, weights=False).state_dict()}
    checkpoint = tmp_path / "c.pth"
    torch.save({**state, "config": config.to_dict(), "task": {"input": spec.to_dict()}}, checkpoint)
    listed = tmp_path / "trees.json"
    listed.write_text(json.dumps({"trees": TREES}))
    found = evaluate(checkpoint, tmp_path, truth, device="cpu", inventory=listed)
    assert found["inventory_trees"] == 1
    assert found["plot_area_ha"] == pytest.approx(12.8**2 / 1e4)
    assert found["stem_density_per_ha_true"] == pytest.approx(2 / 12.8**2 * 1e4)
    assert found["crown_diameter_mean_m_true"] == pytest.approx((3.0 + 2.5) / 2)
    plain = evaluate(checkpoint, tmp_path, truth, device="cpu")
    assert not [name for name in plain if name.startswith("inventory")]
    config, truth = ground(tmp_path, placed=False)
    with caplog.at_level(logging.INFO, logger="cabruca"):
        unknown = evaluate(checkpoint, tmp_path, truth, device="cpu")
    assert sum("no known ground sampling distance" in r.getMessage() for r in caplog.records) == 1
    assert {n for n, v in unknown.items() if (n.endswith(("_m", "_ha")) or "_m_true" in n) and v is not None} == set()
    assert unknown["nearest_neighbour_mean_px_true"] == pytest.approx(np.hypot(50, 65))


def test_a_task_reads_the_inventory_before_the_first_step(tmp_path: Path) -> None:
    listed = tmp_path / "trees.json"
    listed.write_text(json.dumps({"trees": TREES}))
    config, _ = ground(tmp_path, plantation_data=str(listed))
    task = CabrucaTask(config)
    task.prepare()
    assert "inventory_detection_rate" in metric_names(config, task.spec)
    listed.unlink()
    with pytest.raises(DataError, match=r"check validation\.plantation_data"):
        CabrucaTask(config).prepare()
