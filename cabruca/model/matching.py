"""Which crown does a box belong to? In blocks, because 500 crowns x 261,000 anchors at once is 4.5 GiB."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from cabruca.draws import uniform

BACKGROUND = -1
BETWEEN = -2
COVERED = 0.5
"""Share of a box's own area inside an ignored region from which on it is neither crown nor background."""
BLOCK = 1 << 21
"""IoU values held at once (8 MiB in fp32, a few times that with box_iou's intermediates)."""


def match(
    crowns_xyxy_px: Tensor, boxes_xyxy_px: Tensor, *, low: float, high: float, rescue: bool, block: int = BLOCK
) -> Tensor:
    """The crown that each box belongs to, as torchvision's `Matcher` decides it.

    Args:
        crowns_xyxy_px: `[G, 4]`; boxes_xyxy_px: `[A, 4]`.
        low, high: IoU below `low` is background, at least `high` is a match, between is neither.
        rescue: each crown also keeps the boxes that overlap it most, however little ("low quality matches").

    Returns:
        int64 `[A]`: crown index, BACKGROUND or BETWEEN.
    """
    n_crowns, n_boxes = crowns_xyxy_px.shape[0], boxes_xyxy_px.shape[0]
    if n_crowns == 0 or n_boxes == 0:
        return torch.full((n_boxes,), BACKGROUND, dtype=torch.int64, device=boxes_xyxy_px.device)
    width = max(1, block // n_crowns)
    parts = torch.split(boxes_xyxy_px, width)
    best_of_crown = torch.zeros(n_crowns, dtype=boxes_xyxy_px.dtype, device=boxes_xyxy_px.device)
    values, indices, kept = [], [], None
    for part in parts:
        iou = box_iou(crowns_xyxy_px, part)
        value, index = iou.max(dim=0)
        values.append(value)
        indices.append(index)
        best_of_crown = torch.maximum(best_of_crown, iou.max(dim=1).values)
        kept = iou if len(parts) == 1 else None
    value, index = torch.cat(values), torch.cat(indices)
    matched = torch.where(value >= high, index, torch.where(value < low, BACKGROUND, BETWEEN))
    if rescue:
        rescued = torch.cat(
            [_is_best(box_iou(crowns_xyxy_px, p) if kept is None else kept, best_of_crown) for p in parts]
        )
        matched = torch.where(rescued, index, matched)
    return matched


def _is_best(iou: Tensor, best_of_crown: Tensor) -> Tensor:
    """bool `[A]`: the box reaches some crown's best IoU (a crown that overlaps nothing rescues nothing)."""
    return ((iou == best_of_crown[:, None]) & (best_of_crown[:, None] > 0)).any(dim=0)


def covered(boxes_xyxy_px: Tensor, regions_xyxy_px: Tensor, block: int = BLOCK) -> Tensor | None:
    """bool `[A]`: the box lies in one of the regions with COVERED of its own area or more (COCO's rule for a "crowd":
    the intersection over the box's own area). None where there are no regions, so that it costs nothing.

    Args:
        boxes_xyxy_px: `[A, 4]`; regions_xyxy_px: `[M, 4]`.
    """
    if regions_xyxy_px.shape[0] == 0:
        return None
    regions = regions_xyxy_px.to(boxes_xyxy_px.dtype)
    parts = []
    for part in torch.split(boxes_xyxy_px, max(1, block // regions.shape[0])):
        low = torch.maximum(part[:, None, :2], regions[None, :, :2])
        high = torch.minimum(part[:, None, 2:], regions[None, :, 2:])
        shared = (high - low).clamp(min=0).prod(dim=2).amax(dim=1)
        parts.append(shared >= COVERED * (part[:, 2:] - part[:, :2]).prod(dim=1))
    return torch.cat(parts)


def sample_balanced(labels: Tensor, key: int, count: int, positive_share: float) -> tuple[Tensor, Tensor]:
    """A balanced draw of positives (label > 0) and negatives (label == 0); negative labels take no part.

    Candidates are ranked by a random priority that depends on (key, index) alone, so that one candidate that
    changes its label changes one draw, not all of them.

    Returns:
        int64 indices of the positives (at most `count * positive_share`) and of the negatives (the rest).
    """
    priority = uniform(key, labels.shape[0], labels.device)
    positive = (labels > 0).nonzero().flatten()
    negative = (labels == 0).nonzero().flatten()
    n_positive = min(positive.shape[0], int(count * positive_share))
    n_negative = min(negative.shape[0], count - n_positive)
    return _lowest(positive, priority, n_positive), _lowest(negative, priority, n_negative)


def _lowest(candidates: Tensor, priority: Tensor, n: int) -> Tensor:
    if candidates.shape[0] <= n:
        return candidates
    chosen = torch.topk(priority[candidates], n, largest=False, sorted=False).indices
    return candidates[chosen.sort().values]
