"""Trees on ground that several pictures or windows show count once, whatever stands beside or below them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from drawn import drawn_sample, perfect
from surveyed import Pair, metrics_of, part, placed, seen_as

from cabruca.ground import Ground
from cabruca.structures import CroppedMasks, Crowns


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
    """3 x 3 pictures of 128 px, 96 px apart: 49 trees, of which 20 are in two pictures and 4 in four."""
    line = (20.0, 60.0, 112.0, 160.0, 208.0, 256.0, 300.0)
    farm = [(x, y, 14.0, 1 + (i + j) % 2) for i, x in enumerate(line) for j, y in enumerate(line)]
    pairs = []
    for k in range(9):
        x, y = 96 * (k % 3), 96 * (k // 3)
        own = [d for d in moved(farm, x, y) if all(14 <= v <= 114 for v in d[:2])]
        pairs.append(named(placed(seen_as(own, own, index=k), x / 10, -y / 10), str(10 + k)))
    out = metrics_of(pairs)
    assert out["plot_area_ha"] == pytest.approx(32**2 / 1e4)
    assert trees(out) == trees(out, "_true") == pytest.approx(49)
    assert out["cacao_f1"] == out["shade_f1"] == 1.0


@pytest.mark.parametrize("jitter", [-3.0, -1.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("place", [(120.0, 60.0), (120.0, 120.0), (60.5, 119.5)])
def test_windows_that_differ_on_where_a_crown_is_count_it_once(jitter: float, place: tuple[float, float]) -> None:
    """A crown on the line between windows of one picture, its detections moved apart or towards each other."""
    ground = Ground.alone("0", (240, 240), 0.1)
    whole = dataclasses.replace(
        drawn_sample([(*place, 20.0, 1), (60.0, 200.0, 20.0, 2)], size=240), ground=ground, crown_diameter_px=None
    )
    cut = []
    for x in (0, 120):
        for y in (0, 120):
            sample, found = part(whole, x, y, side=120, context=40, ground=ground)
            shift = torch.tensor([jitter, -jitter] * 2) * (1 if x == 0 else -1)
            cut.append((sample, dataclasses.replace(found, boxes_xyxy_px=found.boxes_xyxy_px + shift)))
    out = metrics_of(cut)
    assert trees(out) == trees(out, "_true") == pytest.approx(2)
    assert out["cacao_precision"] == out["cacao_recall"] == 1.0


def test_close_crowns_at_a_line_stay_two() -> None:
    """Two true crowns of IoU 0.6 on the line: each window shows both, and each is put together with itself."""
    ground = Ground.alone("0", (240, 240), 0.1)
    discs = [(117.0, 60.0, 20.0, 1), (124.0, 61.0, 20.0, 1)]
    whole = dataclasses.replace(drawn_sample(discs, size=240), ground=ground, crown_diameter_px=None)
    out = metrics_of([part(whole, x, y, side=120, context=40, ground=ground) for x in (0, 120) for y in (0, 120)])
    assert trees(out) == trees(out, "_true") == pytest.approx(2)
    assert out["crown_iou_mean"] == 1.0


def clipped(discs: list[tuple[float, float, float, int]], size: int) -> Crowns:
    """Boxes of discs as a picture of `size` px shows them; what it shows less than 2 px of is left out."""
    boxes = torch.tensor([[x - r, y - r, x + r, y + r] for x, y, r, _ in discs]).clamp(0, size)
    keep = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1) > 2
    n = int(keep.sum())
    labels = torch.tensor([d[3] for d in discs])[keep]
    return Crowns(boxes[keep], labels, CroppedMasks.empty(n), torch.full((n,), 10.0))


def shown(discs: list[tuple[float, float, float, int]], x: float, picture: int, found: object = None) -> Pair:
    """The picture of 128 px at `x` px of the farm, every crown cut at its edges; `found`: discs that are found."""
    sample = drawn_sample([], index=picture)
    own = dataclasses.replace(sample, crowns=clipped(moved(discs, x, 0), 128), crown_diameter_px=None)
    seen = own if found is None else dataclasses.replace(own, crowns=clipped(moved(found, x, 0), 128))  # type: ignore[arg-type]
    return named(placed((own, perfect(seen)), x / 10, 0), str(10 + picture))


CACAO = [(70.0, 40.0, 6.0, 1), (90.0, 64.0, 6.0, 1), (110.0, 90.0, 6.0, 1), (80.0, 95.0, 6.0, 1)]
SHADE = (90.0, 64.0, 60.0, 2)


def test_cacao_below_a_shade_crown_that_an_edge_cuts_is_kept() -> None:
    """The first picture cuts the shade crown at its right edge, the second at its left; both show the cacao."""
    out = metrics_of([shown([SHADE, *CACAO], x, i) for i, x in enumerate((0, 40))])
    assert trees(out, "_true") == pytest.approx(5)
    assert trees(out) == pytest.approx(5)
    assert out["shade_trees_per_ha_true"] * out["plot_area_ha"] == pytest.approx(1)


def test_cacao_that_only_the_other_picture_found_is_no_part_of_the_shade_crown() -> None:
    out = metrics_of([shown([SHADE, *CACAO], 0, 0, [SHADE]), shown([SHADE, *CACAO], 40, 1, CACAO)])
    assert out["cacao_recall"] == out["cacao_precision"] == 1.0
    assert trees(out) == pytest.approx(5)


@pytest.mark.parametrize("label", [1, 2])
def test_a_cut_crown_is_the_whole_one_of_the_other_picture(label: int) -> None:
    """The first picture shows a third of it, called cacao; the second all of it."""
    first, second = shown([(122.0, 64.0, 15.0, 1)], 0, 0), shown([(122.0, 64.0, 15.0, label)], 80, 1)
    out = metrics_of([first, second])
    assert trees(out, "_true") == pytest.approx(1)
