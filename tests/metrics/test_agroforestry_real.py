"""Real imagery: its own truth as the prediction is perfect in every agroforestry metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from drawn import SPEC, perfect

from cabruca.config.schema import ValidationConfig
from cabruca.data.dataset import EvaluationWindows
from cabruca.metrics.evaluator import Evaluator
from cabruca.runtime import Runtime
from cabruca.structures import InputSpec, collate


def truth_against_itself(
    folder: Path, file: str, categories: Mapping[str, str], side: int = 1024, **settings: object
) -> dict[str, float]:
    spec = InputSpec.from_dict({**SPEC.to_dict(), "category_map": dict(categories)})
    windows = EvaluationWindows(
        folder, folder / file, spec, max_side_px=side, overlap=side // 4, min_visible_share=0.3, cache_mb=64
    )
    config = ValidationConfig().model_copy(update=settings)
    e = Evaluator(SPEC.instance_classes, SPEC.semantic_classes, config, min_visible_share=0.3)
    for i in range(len(windows)):
        sample = windows.get(i)
        e.add(collate([sample]), [perfect(sample)])
    return e.compute(Runtime.single(), mask_labels=frozenset({1, 2}))


def assert_perfect(out: Mapping[str, float]) -> None:
    for name in ("species_accuracy", "crown_iou_mean", "crown_iou_q25", "shade_distribution_score"):
        assert out[name] == pytest.approx(1.0), name
    for name, value in out.items():
        if f"{name}_true" in out and not name.endswith("_count"):
            assert value == pytest.approx(out[f"{name}_true"], nan_ok=True), name
    assert out["canopy_cover_error"] == 0.0
    assert out["total_count"] == out["total_count_true"]


@pytest.mark.parametrize("file", ["train.json", "val.json"])
def test_planted_forest_against_itself(real_data: Callable[[str], Path], file: str) -> None:
    """Small GeoTIFFs in degrees, some of which touch: crowns with masks, one class."""
    folder = real_data("uav_planted_forest")
    out = truth_against_itself(folder, file, {"tree": "cacao_tree"})
    assert_perfect(out)
    assert out["cacao_f1"] == out["cacao_precision"] == out["cacao_recall"] == 1.0
    assert 0.2 < out["canopy_cover_true"] < 1.0
    assert 1.0 < out["crown_diameter_mean_m_true"] < 10.0
    assert 1.0 < out["nearest_neighbour_mean_m_true"] < 10.0


@pytest.mark.parametrize("side", [1024, 256])
def test_cocoa_seedlings_against_themselves(real_data: Callable[[str], Path], side: int) -> None:
    """A PNG without georeference, whole and in a grid of windows: the same answer."""
    folder = real_data("cocoa_seedlings_uav")
    out = truth_against_itself(folder, "train.json", {}, side)
    assert_perfect(out)
    assert out["total_count_true"] == 29
