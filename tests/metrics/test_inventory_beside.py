"""Found crowns beside an inventory whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drawn import SPEC
from surveyed import Pair, placed, seen_as

from cabruca.config.schema import ValidationConfig
from cabruca.ground import Inventory
from cabruca.metrics.agroforestry import agroforestry_names
from cabruca.metrics.evaluator import Evaluator
from cabruca.metrics.inventory import closest_pairs
from cabruca.runtime import Runtime
from cabruca.structures import collate

PLANE = "EPSG:31984"
FOUND = [(30.0, 30.0, 10.0, 1), (90.0, 30.0, 10.0, 2), (30.0, 90.0, 10.0, 1)]
"""At 1 m a pixel and the picture's corner at (1000, 5000): trees at (1030, 4970), (1090, 4970), (1030, 4910)."""


def beside(
    trees: list[tuple[float, float, int, float]], found: list[tuple[float, float, float, int]]
) -> dict[str, float]:
    x, y, labels, diameter = np.array(trees, dtype=np.float64).reshape(-1, 4).T
    inventory = {PLANE: Inventory(labels.astype(np.int64), np.stack([x, y], axis=1), diameter)}
    e = Evaluator(
        SPEC.instance_classes, SPEC.semantic_classes, ValidationConfig(), min_visible_share=0.3, inventory=inventory
    )
    sample, prediction = placed(seen_as([], found, gsd_m=1.0), 1000.0, 5000.0, gsd_m=1.0, plane=PLANE)
    e.add(collate([sample]), [prediction])
    return e.compute(Runtime.single())


def test_by_hand() -> None:
    nan = math.nan
    out = beside(
        [
            (1030.3, 4970.4, 1, 19.0),  # 0.5 m away
            (1091.5, 4970.0, 1, nan),  # 1.5 m away, another species
            (1030.0, 4916.0, 1, 20.0),  # 6 m: too far
            (1100.0, 4890.0, 2, nan),  # nothing was found there
            (2000.0, 4970.0, 1, 20.0),  # not on the plot
        ],
        FOUND,
    )
    assert out["inventory_trees"] == 4
    assert out["inventory_detection_rate"] == 0.5
    assert out["inventory_position_error_m"] == pytest.approx(1.0)
    assert out["inventory_position_error_median_m"] == pytest.approx(1.0)
    assert out["inventory_species_agreement"] == 0.5
    assert out["inventory_diameter_mae_m"] == pytest.approx(1.0, abs=0.1)
    shares = [out[f"inventory_within_{r}"] for r in ("0_5_m", "1_m", "2_m", "5_m")]
    assert shares == [0.25, 0.25, 0.5, 0.5]


@pytest.mark.parametrize(
    ("trees", "found", "rate"), [([], FOUND, math.nan), ([(1030.0, 4970.0, 1, 20.0)], [], 0.0), ([], [], math.nan)]
)
def test_without_trees_or_crowns(trees: list[tuple[float, float, int, float]], found: list[Pair], rate: float) -> None:
    out = beside(trees, found)  # type: ignore[arg-type]
    assert out["inventory_detection_rate"] == pytest.approx(rate, nan_ok=True)
    assert out["inventory_within_5_m"] == pytest.approx(rate, nan_ok=True)
    assert math.isnan(out["inventory_position_error_m"])
    assert agroforestry_names(SPEC.instance_classes, inventory=True) <= set(out)


def test_a_found_crown_answers_for_one_tree_the_closest_first() -> None:
    trees, crowns = np.array([[0.0, 0.0], [2.0, 0.0], [9.0, 0.0]]), np.array([[1.4, 0.0], [-3.0, 0.0]])
    rows, columns, distance = closest_pairs(trees, crowns, 5.0)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(1, 0), (0, 1)]
    assert distance.tolist() == pytest.approx([0.6, 3.0])


@pytest.mark.parametrize("seed", range(5))
def test_crowds_are_paired_as_by_the_list_of_all_pairs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On whole numbers too, where many distances are equal: as many at each distance."""
    rng = np.random.default_rng(seed)
    for a, b in (
        (rng.uniform(0, 20, (300, 2)), rng.uniform(0, 20, (260, 2))),
        (rng.integers(0, 9, (60, 2)).astype(float), rng.integers(0, 9, (60, 2)) + 0.5),
    ):
        monkeypatch.setattr("cabruca.metrics.inventory.CROWDED", 10**9)
        listed = closest_pairs(a, b, 5.0)
        monkeypatch.setattr("cabruca.metrics.inventory.CROWDED", 0)
        i, j, d = closest_pairs(a, b, 5.0)
        assert len(set(i.tolist())) == len(set(j.tolist())) == len(i)
        assert np.linalg.norm(a[i] - b[j], axis=1) == pytest.approx(d)
        if not np.array_equal(a, np.floor(a)):
            assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == sorted(
                zip(listed[0].tolist(), listed[1].tolist(), strict=True)
            )
        assert (d == 0.5**0.5).sum() == pytest.approx((listed[2] == 0.5**0.5).sum(), abs=3)


def test_twenty_thousand_trees_at_one_place_take_no_memory() -> None:
    """A list of their pairs would have 400 million rows."""
    here = np.full((20_000, 2), 500.0)
    i, j, d = closest_pairs(here, here, 5.0)
    assert i.tolist() == j.tolist() == list(range(20_000))
    assert not d.any()
    near = here + np.random.default_rng(0).uniform(-1, 1, here.shape)
    assert len(closest_pairs(near, here + 0.1, 5.0)[0]) == 20_000
