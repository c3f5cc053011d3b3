"""Trees on ground that several pictures or windows show count once, whatever stands beside or below them."""

from __future__ import annotations

import dataclasses

import pytest
from surveyed import Pair, metrics_of, placed, seen_as


def named(pair: Pair, picture: str) -> Pair:
    """The pair under another picture's id, as image ids of a file come in."""
    sample, found = pair
    assert sample.ground is not None
    ground = dataclasses.replace(sample.ground, picture=picture)
    return dataclasses.replace(sample, picture=f"{picture}:0:0", ground=ground), found


def moved(discs: list[tuple[float, float, float, int]], x: float, y: float) -> list[tuple[float, float, float, int]]:
    return [(cx - x, cy - y, r, label) for cx, cy, r, label in discs]


def trees(out: dict[str, float], side: str = "") -> float:
    return out[f"stem_density_per_ha{side}"] * out["plot_area_ha"]


@pytest.mark.parametrize("ids", [("1", "2"), ("10", "11"), ("plot_a", "plot_b")])
def test_ids_that_begin_alike_are_different_pictures(ids: tuple[str, str]) -> None:
    discs = [(70.0, 40.0, 20.0, 1), (80.0, 90.0, 20.0, 2)]
    pairs = [seen_as(moved(discs, x, 0), moved(discs, x, 0), index=i) for i, x in enumerate((0, 30))]
    out = metrics_of([named(placed(p, x, 0), name) for p, x, name in zip(pairs, (0, 3), ids, strict=True)])
    assert trees(out) == trees(out, "_true") == pytest.approx(2)


def test_a_mosaic_of_nine_pictures_counts_each_tree_once() -> None:
    """3 x 3 pictures of 128 px, 96 px apart: 25 trees, some of them in four pictures."""
    farm = [(32.0 + 64 * i, 32.0 + 64 * j, 14.0, 1 + (i + j) % 2) for i in range(5) for j in range(5)]
    pairs = []
    for k in range(9):
        x, y = 96 * (k % 3), 96 * (k // 3)
        own = [d for d in moved(farm, x, y) if all(14 <= v <= 114 for v in d[:2])]
        pairs.append(named(placed(seen_as(own, own, index=k), x / 10, -y / 10), str(10 + k)))
    out = metrics_of(pairs)
    assert out["plot_area_ha"] == pytest.approx(32**2 / 1e4)
    assert trees(out) == trees(out, "_true") == pytest.approx(25)
    assert out["cacao_f1"] == out["shade_f1"] == 1.0
