"""Real data sets through the whole road: which heads learn from what, and what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn_farm import farm_settings
from memory_reporter import MemoryReporter

from cabruca.config.load import load_config
from cabruca.runtime import Runtime
from cabruca.task import CabrucaTask
from cabruca.train.loop import train
from cabruca.train.protocols import Metrics


def two_steps(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> tuple[Metrics, MemoryReporter]:
    """Four windows in two steps, one validation; the epoch's record."""
    settings = farm_settings(folder, tmp_path)
    settings |= {f"data.{s}_dir": str(folder) for s in ("train", "val")}
    settings |= {f"data.{s}_annotations": str(folder / f"{s}.json") for s in ("train", "val")}
    settings |= {"data.tile_size": 128, "data.windows_per_epoch": 4, "training.num_epochs": 1, **changes}
    config = load_config(None, settings)
    reporter = MemoryReporter()
    train(config, CabrucaTask(config), runtime=Runtime.single(), reporter=reporter)
    return reporter.records[-1].metrics, reporter


HEADS = ("instance", "semantic", "crown", "density")


@pytest.mark.parametrize(
    ("name", "category_map", "learning"),
    [
        ("oil_palm_uav", {"oil_palm": "cacao_tree"}, ("instance",)),
        ("uav_planted_forest", {"tree": "shade_tree"}, HEADS),
        ("cocoa_seedlings_uav", {}, HEADS),
        ("neon_samples", {"live_tree": "shade_tree", "dead_tree": "ignore"}, ("instance",)),
    ],
)
def test_heads_learn_from_the_truth_there_is(
    real_data: Callable[[str], Path], tmp_path: Path, name: str, category_map: dict[str, str], learning: tuple[str, ...]
) -> None:
    found, reporter = two_steps(real_data(name), tmp_path, {"data.category_map": category_map})
    assert {h for h in HEADS if found[f"train/loss_{h}"] > 0} == set(learning)
    assert {h for h in HEADS if math.isnan(found[f"train/loss_{h}"])} == set(HEADS) - set(learning)
    assert found["val/total_count_true"] > 0
    has_masks = "crown" in learning
    assert bool(reporter.state["model"]["instance.mask_trained"].any()) == has_masks
    assert math.isnan(found["val/segm_mAP"]) != has_masks
    assert math.isnan(found["val/mIoU"]) != has_masks
    pictures = reporter.records[-1].pictures
    assert pictures
    assert pictures[0].rgb.max() > 100
    if name == "oil_palm_uav":
        assert found["val/cacao_count_true"] == 3107, "the file's own count of palms"
