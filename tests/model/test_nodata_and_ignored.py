"""Windows without data, regions that are neither crown nor background, and masks that were never learnt."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from drawn import SPEC, drawn_batch, drawn_sample, light_config

from cabruca.model import instance_head
from cabruca.model.build import build_model
from cabruca.model.instance_head import Detections
from cabruca.model.matching import covered
from cabruca.model.segmenter import Segmenter
from cabruca.structures import IGNORE, Batch, CroppedMasks, Crowns, Regions, Sample, collate, known_share


@pytest.fixture(scope="module")
def model() -> Segmenter:
    return build_model(light_config(), SPEC).double()


def doubled(*samples: Sample) -> Batch:
    return collate(samples).to("cpu", dtype=torch.float64)


def blank(index: int = 7) -> Sample:
    """A window that shows NoData alone: nothing is known of it."""
    sample = drawn_sample([], index=index)
    return dataclasses.replace(
        sample,
        valid=torch.zeros_like(sample.valid),
        semantic=torch.full_like(sample.semantic, IGNORE),
        density=torch.full_like(sample.density, -1),
    )


def regions(boxes: list[list[float]], labels: list[int] | None = None) -> Regions:
    n = len(boxes)
    return Regions(torch.tensor(boxes), torch.tensor(labels or [0] * n), CroppedMasks.empty(n))


def test_a_window_of_nodata_alone_teaches_nothing(model: Segmenter) -> None:
    model.train()
    terms = model(doubled(blank())).terms
    assert set(terms.heads) == {"instance"}
    assert float(terms.heads["instance"].detach()) == 0
    terms.heads["instance"].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()


def test_a_window_of_nodata_changes_nothing_for_its_neighbour(model: Segmenter) -> None:
    model.train()
    good = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 2)])
    alone = model(doubled(good)).terms.heads
    for at, order in ((0, (good, blank())), (1, (blank(), good))):
        both = model(doubled(*order)).terms.heads
        for name, value in alone.items():
            torch.testing.assert_close(both[name][at], value[0], rtol=1e-9, atol=1e-12)
            assert float(both[name][1 - at].detach()) == 0


def test_nothing_is_found_on_nodata(model: Segmenter) -> None:
    model.eval()
    with torch.no_grad():
        found = model(doubled(blank(), drawn_sample([(40, 40, 14, 1)])), predictions=True).predictions
        alone = model(doubled(blank()), predictions=True).predictions
    assert len(found[0].scores) == len(alone[0].scores) == 0
    assert len(found[1].scores) > 0


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Labels of RPN and RoI candidates as they are drawn from."""
    seen: list[torch.Tensor] = []
    for module in (instance_head, __import__("cabruca.model.proposals", fromlist=["x"])):
        real = module.sample_balanced

        def spy(labels: torch.Tensor, *rest: object, real: object = real) -> object:
            seen.append(labels.clone())
            return real(labels, *rest)  # type: ignore[operator]

        monkeypatch.setattr(module, "sample_balanced", spy)
    return seen


def test_ignored_regions_are_no_background(model: Segmenter, sampled: list[torch.Tensor]) -> None:
    """The right half is a crowd: no candidate that lies there is background, the crown in it stays a crown."""
    model.train()
    sample = drawn_sample([(30, 40, 14, 1), (96, 40, 14, 1)])
    model(doubled(sample))
    plain_rpn, plain_roi = sampled[0], sampled[1]
    sampled.clear()
    crowns = dataclasses.replace(sample.crowns, ignored=regions([[64.0, 0, 128, 128]]))
    model(doubled(dataclasses.replace(sample, crowns=crowns)))
    rpn, roi = sampled[0], sampled[1]
    for before, after in ((plain_rpn, rpn), (plain_roi, roi)):
        assert torch.equal(before > 0, after > 0)
        changed = before != after
        assert bool(changed.any())
        assert bool((before[changed] == 0).all())
        assert bool((after[changed] == -1).all())
    anchors = model.instance.rpn(model.backbone(model.normalised(doubled(sample)))).anchors_xyxy_px
    inside = (anchors[:, 0] >= 64) & (anchors[:, 1] >= 0) & (anchors[:, 2] <= 128) & (anchors[:, 3] <= 128)
    assert not bool((rpn[inside] == 0).any())
    left = anchors[:, 2] <= 64
    assert torch.equal(rpn[left], plain_rpn[left])


def test_covered_by_hand_and_in_blocks() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [6, 0, 16, 10], [40, 40, 50, 50]])
    region = torch.tensor([[0.0, 0, 10, 10], [100, 100, 120, 120]])
    for block in (1, 2, 1 << 20):
        found = covered(boxes, region, block=block)
        assert found is not None
        assert found.tolist() == [True, True, False, False]
    assert covered(boxes, region[:0]) is None


def test_known_share_counts_the_pixels_of_a_box() -> None:
    valid = torch.ones(20, 30, dtype=torch.bool)
    valid[:, 10:] = False
    boxes = torch.tensor([[0.0, 0, 10, 20], [5, 5, 15, 10], [8.5, 0, 12, 4], [20, 0, 30, 20], [29.9, 19.9, 30, 20]])
    torch.testing.assert_close(known_share(boxes, valid), torch.tensor([1.0, 0.5, 0.5, 0.0, 0.0]))


def test_a_detection_over_a_hole_smaller_than_half_of_it_stays(model: Segmenter) -> None:
    """NoData under a crown's very centre does not undo the crown; NoData under most of it does."""
    model.eval()
    sample = drawn_sample([(64, 64, 20, 1)])
    with torch.no_grad():
        head = model.instance
        maps = model.backbone(model.normalised(doubled(sample)))
        whole = head.detect(maps, doubled(sample), max_detections=[300], nms_iou=1.0)[0].boxes_xyxy_px
        hole = sample.valid.clone()
        cx, cy = ((whole[0, :2] + whole[0, 2:]) / 2).long().tolist()
        hole[cy, cx] = False
        masked = dataclasses.replace(sample, valid=hole)
        found = head.detect(maps, doubled(masked), max_detections=[300], nms_iou=1.0)[0].boxes_xyxy_px
    assert any(torch.equal(whole[0], b) for b in found)


def test_a_class_without_learnt_masks_is_drawn_by_its_boxes(model: Segmenter) -> None:
    model.eval()
    batch = doubled(drawn_sample([(40, 40, 14, 1), (90, 80, 20, 2)]))
    trained = model.instance.mask_trained.clone()
    model.instance.mask_trained[:] = torch.tensor([False, False, True])
    try:
        with torch.no_grad():
            (found,) = model(batch, losses=False, predictions=True).predictions
    finally:
        model.instance.mask_trained[:] = trained
    rect = found.masks.rect_xywh_px
    assert bool((rect[found.labels == 1] == 0).all())
    assert set(found.labels.tolist()) == {1, 2}
    assert bool((rect[found.labels == 2, 2:] > 0).all())
    assert found.masks.pixels.numel() == int((rect[:, 2] * rect[:, 3]).sum())


def test_masks_are_read_a_few_at_a_time(model: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    model.eval()
    head = model.instance
    batch = drawn_batch(2).to("cpu", dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(600, 2, generator=rng, dtype=torch.float64) * 90
    boxes = torch.cat([corner, corner + 20], dim=1)
    found = [Detections(boxes, torch.ones(600), torch.ones(600, dtype=torch.long), None) for _ in range(2)]
    seen: list[int] = []
    real = head._read_masks

    def spy(maps: list[torch.Tensor], boxes: list[torch.Tensor], *rest: object) -> torch.Tensor:
        seen.append(sum(len(b) for b in boxes))
        return real(maps, boxes, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(head, "_read_masks", spy)
    monkeypatch.setitem(head._buffers, "mask_trained", torch.tensor([False, True, True]))
    with torch.no_grad():
        maps = model.backbone(model.normalised(batch))
        chunked = head._add_masks(maps, batch, found)
        assert max(seen) <= 256
        assert sum(seen) == 1200
        monkeypatch.setattr(instance_head, "MASKS_AT_ONCE", 10_000)
        whole = head._add_masks(maps, batch, found)
    for a, b in zip(chunked, whole, strict=True):
        assert torch.equal(a.masks.pixels, b.masks.pixels)
        assert torch.equal(a.masks.rect_xywh_px, b.masks.rect_xywh_px)


def test_pooling_casts_half_precision_maps_itself(model: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where autocast has no kernel for RoIAlign (MPS), maps and boxes must be of one type already."""
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def pooler(maps: dict[str, torch.Tensor], boxes: list[torch.Tensor], sizes: object) -> torch.Tensor:
        seen.extend((m.dtype, boxes[0].dtype) for m in maps.values())
        return maps["0"]

    for given, expected in ((torch.float16, torch.float32), (torch.bfloat16, torch.float32)):
        seen.clear()
        maps = [torch.zeros(1, 4, 8, 8, dtype=given)] * 4
        model.instance._pool(pooler, maps, [torch.zeros(1, 4)], torch.Size((32, 32)))  # type: ignore[arg-type]
        assert seen == [(expected, expected)] * 4


def test_mean_and_std_come_from_the_input_specification_alone() -> None:
    first = build_model(light_config(), SPEC)
    state = first.state_dict()
    assert not {"mean", "std"} & set(state)
    other = dataclasses.replace(SPEC, mean=(0.1, 0.2, 0.3))
    second = build_model(light_config(), other)
    early = {**state, "mean": torch.full((3, 1, 1), 9.0), "std": torch.full((3, 1, 1), 9.0)}
    second.load_state_dict(early)
    assert second.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert "mean" in early, "the caller's dict is left alone"


def test_what_a_picture_has_no_truth_for_is_said(model: Segmenter) -> None:
    model.train()
    full, boxes = drawn_sample([(40, 40, 14, 1)]), drawn_sample([(40, 40, 14, 1)], index=1, masks=False)
    known = model(doubled(full, boxes, blank())).terms.known
    assert {k: v.tolist() for k, v in known.items()} == {
        "instance": [True, True, True],
        "semantic": [True, False, False],
        "crown": [True, False, False],
        "density": [True, False, False],
        "instance/mask": [True, False, False],
    }


def test_crowns_take_their_centre_from_the_box_unless_told() -> None:
    crowns = Crowns(
        torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([1]), CroppedMasks.empty(1), torch.tensor([15.0])
    ).to("cpu")
    assert crowns.centre_xy_px.tolist() == [[5.0, 10.0]]
    assert len(crowns.ignored) == 0
