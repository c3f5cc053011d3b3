"""Crown head: the diameter of the crown above every cell."""

from __future__ import annotations

import math

from torch import Tensor, nn

from cabruca.model.semantic_head import conv_norm

TYPICAL_DIAMETER_PX = 40.0
"""Where the output starts before it has learnt anything."""


class CrownHead(nn.Module):
    """Logarithm of the crown diameter in pixels; metres are exp(this) times the picture's metres a pixel.

    Shapes: four maps -> `[B, H/4, W/4]`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(32, channels // 4)
        self.mix = conv_norm(channels, width)
        self.read = nn.Conv2d(width, 1, 1)
        nn.init.constant_(self.read.bias, math.log(TYPICAL_DIAMETER_PX))  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor]) -> Tensor:
        log_diameter: Tensor = self.read(self.mix(maps[0]))
        return log_diameter[:, 0]
