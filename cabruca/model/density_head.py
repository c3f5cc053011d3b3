"""Density head: the share of each stride-32 cell that canopy covers."""

from __future__ import annotations

from torch import Tensor, nn

from cabruca.model.semantic_head import conv_norm


class DensityHead(nn.Module):
    """Logit of canopy cover.

    Shapes: four maps -> `[B, H/32, W/32]`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = conv_norm(channels, channels)
        self.read = nn.Conv2d(channels, 1, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        logits: Tensor = self.read(self.mix(maps[-1]))
        return logits[:, 0]
