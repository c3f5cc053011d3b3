"""Fault 8 of the predecessor: our shade score passes, each part of the fault put back turns its check red."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from drawn import SPEC, Disc
from surveyed import metrics_of, seen_as

from cabruca.config.schema import Config
from cabruca.measuring import metric_names

Measure = Callable[[list[Disc], list[Disc], float], dict[str, float]]
"""Metrics of true discs, found discs and metres a pixel, on a picture of 256 px."""


def ours(truth: list[Disc], found: list[Disc], gsd_m: float) -> dict[str, float]:
    return metrics_of([seen_as(truth, found, size=256, gsd_m=gsd_m)])


def predecessors(truth: list[Disc], found: list[Disc], gsd_m: float, *, radius: float = 12.0) -> dict[str, float]:
    """Fault 8: only the prediction is looked at, distances stay in pixels, without cacao there is no score, and the
    canopy's IoU is not logged."""
    cacao, shade = (np.array([d[:2] for d in found if d[3] == label]).reshape(-1, 2) for label in (1, 2))
    if len(cacao) == 0 or len(shade) == 0:
        return {}
    near = np.linalg.norm(cacao[:, None] - shade[None], axis=2).min(axis=1) <= radius
    return {"shade_distribution_score": float(near.mean()), "cacao_in_shade_share": float(near.mean())}


CACAO: list[Disc] = [(128.0, 60.0, 12.0, 1)]
WEST, EAST = (50.0, 60.0, 20.0, 2), (206.0, 60.0, 20.0, 2)


def the_truth_matters(measure: Measure) -> None:
    right = measure([*CACAO, WEST], [*CACAO, WEST], 0.1)
    wrong = measure([*CACAO, WEST], [*CACAO, EAST], 0.1)
    assert right["shade_distribution_score"] == 1.0
    assert wrong["shade_distribution_score"] == 0.0


def the_radius_is_in_metres(measure: Measure) -> None:
    """78 px between cacao and shade are 7.8 m at 0.1 m a pixel, and 39 m at 0.5 m."""
    shares = [measure([*CACAO, WEST], [*CACAO, WEST], gsd_m)["cacao_in_shade_share"] for gsd_m in (0.1, 0.5)]
    assert shares == [1.0, 0.0]


def it_is_there_without_cacao(measure: Measure) -> None:
    assert measure([WEST], [WEST], 0.1).get("shade_distribution_score") == 1.0


def canopy_iou_is_logged(measure: Measure) -> None:
    assert measure([*CACAO, WEST], [*CACAO, WEST], 0.1).get("canopy_iou") == 1.0


PARTS = (the_truth_matters, the_radius_is_in_metres, it_is_there_without_cacao, canopy_iou_is_logged)


@pytest.mark.parametrize("check", PARTS)
def test_fault_8_shade_is_compared_with_the_truth_in_metres(check: Callable[[Measure], None]) -> None:
    check(ours)


@pytest.mark.parametrize("check", PARTS)
def test_fault_8_put_back_is_red(check: Callable[[Measure], None]) -> None:
    with pytest.raises(AssertionError):
        check(predecessors)


def test_what_was_promised_is_listed() -> None:
    """Tree count accuracy, canopy IoU and shade distribution are names that can be monitored."""
    promised = {"total_count_accuracy", "cacao_count_accuracy", "canopy_iou", "shade_distribution_score"}
    assert promised <= metric_names(Config(), SPEC)


def test_the_score_falls_as_shade_moves_away() -> None:
    """Shade of 8 m across that moves over the lines of the 10 m squares step by step."""
    scores = [
        ours([(50.0, 50.0, 40.0, 2)], [(50.0 + step, 50.0, 40.0, 2)], 0.1)["shade_distribution_score"]
        for step in (0, 20, 40, 60, 80, 100)
    ]
    assert scores[0] == 1.0
    assert scores[-1] == pytest.approx(0.0, abs=0.01)
    assert all(a > b for a, b in pairwise(scores))
