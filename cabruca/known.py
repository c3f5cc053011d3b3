"""How much of a crown lies on pixels whose truth is known. A leaf: it imports torch only."""

from __future__ import annotations

import torch
from torch import Tensor

ENOUGH_KNOWN = 0.5
"""A crown of which a smaller share of the box is known pixels is neither truth nor prediction."""


def known_share(boxes_xyxy_px: Tensor, valid: Tensor) -> Tensor:
    """float32 `[N]`: share of known pixels among those that each box touches.

    Args:
        boxes_xyxy_px: `[N, 4]`; valid: bool `[H, W]`. Read off an integral image, so that N costs nothing.
    """
    height, width = valid.shape
    total = torch.zeros(height + 1, width + 1, dtype=torch.int32, device=valid.device)
    total[1:, 1:] = valid.to(torch.int32).cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    x0, y0 = (boxes_xyxy_px[:, k].floor().long().clamp(0, n - 1) for k, n in ((0, width), (1, height)))
    x1, y1 = (boxes_xyxy_px[:, k].ceil().long().clamp(1, n) for k, n in ((2, width), (3, height)))
    x1, y1 = torch.maximum(x1, x0 + 1), torch.maximum(y1, y0 + 1)
    known = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
    return known / ((x1 - x0) * (y1 - y0))
