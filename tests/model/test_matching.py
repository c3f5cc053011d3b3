"""Matching in blocks is torchvision's matching; a draw depends on its own candidate only."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from cabruca.model.matching import BETWEEN, match, sample_balanced


def boxes(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 200
    return torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=g) * 60], dim=1)


@pytest.mark.parametrize("block", [1 << 21, 700, 1])
@pytest.mark.parametrize(("low", "high", "rescue"), [(0.3, 0.7, True), (0.5, 0.5, False)])
def test_equals_torchvision_in_any_block_size(block: int, low: float, high: float, rescue: bool) -> None:
    crowns, anchors = boxes(23, 0), torch.cat([boxes(400, 1), boxes(23, 0) + 2.0])
    ours = match(crowns, anchors, low=low, high=high, rescue=rescue, block=block)
    theirs = Matcher(high, low, allow_low_quality_matches=rescue)(box_iou(crowns, anchors))
    assert torch.equal(ours, theirs)
    assert (ours >= 0).any()
    assert (low == high) or (ours == BETWEEN).any()


def test_a_crown_that_overlaps_nothing_rescues_nothing() -> None:
    far = torch.tensor([[1000.0, 1000.0, 1010.0, 1010.0]])
    assert (match(far, boxes(50, 2), low=0.3, high=0.7, rescue=True) == -1).all()


def test_no_crowns_and_no_boxes() -> None:
    assert match(torch.zeros(0, 4), boxes(5, 0), low=0.3, high=0.7, rescue=True).tolist() == [-1] * 5
    assert match(boxes(5, 0), torch.zeros(0, 4), low=0.3, high=0.7, rescue=True).shape == (0,)


def test_sampling_takes_the_share_and_fills_up_with_negatives() -> None:
    labels = torch.cat([torch.ones(100), torch.zeros(900), -torch.ones(50)]).long()
    positive, negative = sample_balanced(labels, 7, 64, 0.25)
    assert (len(positive), len(negative)) == (16, 48)
    assert (labels[positive] == 1).all()
    assert (labels[negative] == 0).all()
    again = sample_balanced(labels, 7, 64, 0.25)
    assert torch.equal(positive, again[0])
    assert not torch.equal(positive, sample_balanced(labels, 8, 64, 0.25)[0])


def test_one_flipped_candidate_changes_one_draw() -> None:
    labels = torch.zeros(1000).long()
    labels[:300] = 1
    before = set(sample_balanced(labels, 3, 64, 0.5)[0].tolist())
    for victim in sorted(before)[:3]:
        flipped = labels.clone()
        flipped[victim] = -1
        after = set(sample_balanced(flipped, 3, 64, 0.5)[0].tolist())
        assert len(before - after) == 1
        assert before - after == {victim}
