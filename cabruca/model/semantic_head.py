"""Semantic head: the land cover class of every pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Sequential:
    """Convolution, GroupNorm, ReLU: the brick of every head (no batch statistics anywhere)."""
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if out_channels % g == 0)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(groups, out_channels),
        nn.ReLU(inplace=True),
    )


class SemanticHead(nn.Module):
    """All pyramid levels, brought to stride 4 and summed (Kirillov et al. 2019, "Panoptic feature pyramid networks").

    Shapes: four maps `[B, C, H/4.., W/4..]` -> logits `[B, num_classes, H, W]`.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        width = max(32, channels // 2)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for _ in range(4))
        self.mix = conv_norm(width, width)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        total = self.lateral[0](maps[0])
        for lateral, level in zip(self.lateral[1:], maps[1:], strict=True):
            total = total + F.interpolate(lateral(level), size=total.shape[-2:], mode="bilinear", align_corners=False)
        logits = self.classify(self.mix(total))
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
