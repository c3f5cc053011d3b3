"""Region proposals: which boxes of the picture are worth a look.

torchvision's head, anchors and coder; own matching (in blocks), sampling (a function of the sample's key) and
losses (a value per picture).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from cabruca.config.schema import ModelConfig
from cabruca.draws import draw_key
from cabruca.model.backbone import STRIDES
from cabruca.model.losses import box_loss, objectness_loss
from cabruca.model.matching import BACKGROUND, BETWEEN, covered, match, sample_balanced
from cabruca.structures import Batch

ANCHORS_PER_PICTURE = 256
NMS_IOU = 0.7


@dataclass(frozen=True)
class Candidates:
    """All anchors of a batch: logits `[B, A]`, offsets `[B, A, 4]`, the anchors `[A, 4]`, anchors per level."""

    logits: Tensor
    offsets: Tensor
    anchors_xyxy_px: Tensor
    per_level: list[int]


class ProposalNetwork(nn.Module):
    """RPN (Ren et al. 2015) over four pyramid levels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes = config.anchor_sizes_px
        # one size a level, fine to coarse; spare sizes go to the coarsest
        per_level: list[tuple[float, ...]] = [(s,) for s in sizes[: len(STRIDES) - 1]] + [sizes[len(STRIDES) - 1 :]]
        self.anchor_generator = AnchorGenerator(tuple(per_level), (config.anchor_ratios,) * len(STRIDES))
        self.trunk = RPNHead(config.fpn_channels, len(config.anchor_ratios))
        extra = len(per_level[-1])
        self.coarse = RPNHead(config.fpn_channels, extra * len(config.anchor_ratios)) if extra > 1 else None
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.keep = config.proposals

    def forward(self, maps: list[Tensor]) -> Candidates:
        logits, offsets = self.trunk(maps if self.coarse is None else maps[:-1])
        if self.coarse is not None:
            last = self.coarse(maps[-1:])
            logits, offsets = [*logits, *last[0]], [*offsets, *last[1]]
        dtype = torch.float64 if maps[0].dtype == torch.float64 else torch.float32
        flat_logits = [x.permute(0, 2, 3, 1).flatten(1).to(dtype) for x in logits]
        flat_offsets = [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4).to(dtype) for x in offsets]
        return Candidates(
            logits=torch.cat(flat_logits, dim=1),
            offsets=torch.cat(flat_offsets, dim=1),
            anchors_xyxy_px=self._anchors(maps, dtype),
            per_level=[x.shape[1] for x in flat_logits],
        )

    def _anchors(self, maps: list[Tensor], dtype: torch.dtype) -> Tensor:
        """Anchors of one picture, always in full precision: under autocast the maps are bf16."""
        device = maps[0].device
        self.anchor_generator.set_cell_anchors(dtype, device)
        strides = [[torch.tensor(s, dtype=torch.int64, device=device)] * 2 for s in STRIDES]
        grids = self.anchor_generator.grid_anchors([list(m.shape[-2:]) for m in maps], strides)
        return torch.cat(grids)

    @torch.no_grad()
    def proposals(
        self,
        found: Candidates,
        sizes_hw_px: list[tuple[int, int]],
        room: Sequence[float] | None = None,
        *,
        wanted: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """The best boxes of each picture, `[P, 4]`, clipped to it (padding excluded), P <= `model.proposals`.

        When not training that many times the picture's `room` `[B]`, so that what is found of some ground does not
        depend on how large the picture is that shows it; and at least twice the crowns that are `wanted` `[B]` of it.
        """
        most = [self.keep] * len(sizes_hw_px)
        if not self.training:
            grown = [math.ceil(self.keep * r) for r in room] if room is not None else most
            most = [max(a, 2 * b) for a, b in zip(grown, wanted or [0] * len(grown), strict=True)]
        return [
            self._of_picture(found.logits[b].detach(), found.offsets[b].detach(), found, size, most[b])
            for b, size in enumerate(sizes_hw_px)
        ]

    def _of_picture(
        self, logits: Tensor, offsets: Tensor, found: Candidates, size: tuple[int, int], most: int
    ) -> Tensor:
        chosen, levels, first = [], [], 0
        for level, count in enumerate(found.per_level):
            best = logits[first : first + count].topk(min(most, count)).indices + first
            chosen.append(best)
            levels.append(torch.full_like(best, level))
            first += count
        index, level_of = torch.cat(chosen), torch.cat(levels)
        decoded = self.coder.decode_single(offsets[index], found.anchors_xyxy_px[index])
        boxes: Tensor = clip_boxes_to_image(decoded, size)
        keep = remove_small_boxes(boxes, 1e-3)
        boxes, scores, level_of = boxes[keep], logits[index][keep], level_of[keep]
        keep = batched_nms(boxes.float(), scores.float(), level_of, NMS_IOU)[:most]
        return boxes[keep]

    def losses(self, found: Candidates, batch: Batch) -> tuple[Tensor, Tensor]:
        """Objectness and box loss, `[B]` each."""
        known = anchors_known(found.anchors_xyxy_px, batch.known)
        pairs = [self._losses_of(found, b, batch, known[b]) for b in range(len(batch))]
        return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])

    def _losses_of(self, found: Candidates, b: int, batch: Batch, known: Tensor) -> tuple[Tensor, Tensor]:
        anchors = found.anchors_xyxy_px
        crowns = batch.crowns[b].boxes_xyxy_px.to(anchors.dtype)
        matched = match(crowns, anchors, low=0.3, high=0.7, rescue=True)
        label = (matched >= 0).long()
        label[(matched == BETWEEN) | ((matched == BACKGROUND) & ~known)] = -1
        ignored = covered(anchors, batch.crowns[b].ignore_xyxy_px)
        if ignored is not None:
            label[(matched == BACKGROUND) & ignored] = -1
        positive, negative = sample_balanced(label, draw_key(batch.keys[b], 1), ANCHORS_PER_PICTURE, 0.5)
        objectness = objectness_loss(found.logits[b], positive, negative)
        targets = self.coder.encode_single(crowns[matched[positive]], anchors[positive])
        return objectness, box_loss(found.offsets[b][positive], targets, positive.numel() + negative.numel())


def anchors_known(boxes_xyxy_px: Tensor, known: Tensor) -> Tensor:
    """bool `[B, A]`: the box's centre lies on a pixel whose truth is known (NoData and ground that nobody labelled are
    never background)."""
    centre = (boxes_xyxy_px[:, :2] + boxes_xyxy_px[:, 2:]) / 2
    col = centre[:, 0].long().clamp(0, known.shape[-1] - 1)
    row = centre[:, 1].long().clamp(0, known.shape[-2] - 1)
    return known[:, row, col]
