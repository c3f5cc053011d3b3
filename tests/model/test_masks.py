"""Cropped masks give what dense masks would."""

from __future__ import annotations

import math

import pytest
import torch
from drawn import crowns_of
from torchvision.ops import roi_align

from cabruca.model import masks as room
from cabruca.model.masks import mask_targets, paste

DISCS = [(40.3, 52.7, 14.0, 1), (80.0, 44.0, 21.5, 2), (60.0, 90.0, 9.0, 1)]


@pytest.mark.parametrize("size", [14, 28])
def test_targets_equal_roi_align_of_dense_masks(size: int) -> None:
    crowns = crowns_of(DISCS)
    index = torch.tensor([0, 0, 1, 2, 2])
    shift = torch.tensor([[0.0, 0, 0, 0], [3, -2, 5, 1], [-4, 3, 2, 2], [0.5, 0.25, -2, 3], [-8, -8, 8, 8]])
    boxes = crowns.boxes_xyxy_px[index] + shift
    ours = mask_targets(crowns.masks, index, boxes, size)
    dense = crowns.masks.dense(128, 128).float()[:, None]
    rois = torch.cat([index[:, None].float(), boxes], dim=1)
    theirs = roi_align(dense, rois, (size, size), 1.0, sampling_ratio=2, aligned=True)[:, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert 0.5 < float(ours.mean()) < 0.95


def test_a_mask_survives_the_way_through_the_network() -> None:
    crowns = crowns_of(DISCS)
    index = torch.arange(3)
    grid = mask_targets(crowns.masks, index, crowns.boxes_xyxy_px, 28)
    back = paste(grid, crowns.boxes_xyxy_px, 128, 128)
    truth, found = crowns.masks.dense(128, 128).bool(), back.dense(128, 128).bool()
    iou = (truth & found).sum((1, 2)) / (truth | found).sum((1, 2))
    assert (iou > 0.95).all(), iou


def test_pasting_cuts_at_the_picture_and_works_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = torch.tensor([[-10.0, -10.0, 10.0, 10.0], [100.0, 50.0, 140.0, 90.0], [5.2, 5.2, 5.6, 5.6]])
    whole = paste(torch.ones(3, 28, 28), boxes, 128, 128)
    assert whole.rect_xywh_px.tolist() == [[0, 0, 10, 10], [100, 50, 28, 40], [5, 5, 1, 1]]
    assert whole.areas_px().tolist() == [100, 28 * 40, 1]
    monkeypatch.setattr(room, "CHUNK_PX", 50)
    parts = paste(torch.ones(3, 28, 28), boxes, 128, 128)
    assert torch.equal(whole.pixels, parts.pixels)


def test_pasted_disc_has_the_area_of_a_disc() -> None:
    axis = (torch.arange(28) + 0.5) / 28 - 0.5
    soft = (0.5 - (axis[:, None] ** 2 + axis[None] ** 2).sqrt()) * 10 + 0.5
    found = paste(soft.clamp(0, 1)[None], torch.tensor([[20.0, 20.0, 100.0, 100.0]]), 128, 128)
    assert abs(int(found.areas_px()[0]) / (math.pi * 40**2) - 1) < 0.02


def test_no_masks_at_all() -> None:
    crowns = crowns_of(DISCS, masks=False)
    assert not crowns.masks.has_mask.any()
    assert mask_targets(crowns.masks, torch.tensor([0]), crowns.boxes_xyxy_px[:1], 28).sum() == 0
    assert len(paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), 10, 10)) == 0


def test_selecting_keeps_order_and_pixels() -> None:
    masks = crowns_of(DISCS).masks
    some = masks.select(torch.tensor([2, 0]))
    assert torch.equal(some.dense(128, 128), masks.dense(128, 128)[[2, 0]])
    assert some.areas_px().tolist() == masks.areas_px()[[2, 0]].tolist()
