"""Cropped masks on their way into the loss and out of the network, without ever making one dense.

Both directions are one gather over a flat list of pixels, in chunks, so that memory follows the crowns' own
area and never N x H x W.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cabruca.structures import CroppedMasks

CHUNK_PX = 1 << 20
"""Pixels handled at once when masks are pasted."""


def mask_targets(masks: CroppedMasks, index: Tensor, boxes_xyxy_px: Tensor, size: int, samples: int = 2) -> Tensor:
    """Truth masks as seen by RoIs: the RoIAlign of crown `index[p]` over box `p`.

    Each of size x size bins is the mean of samples x samples bilinear readings (He et al. 2017, "Mask R-CNN",
    section 3); pixel i covers i..i+1, so its centre is i + 0.5.

    Args:
        masks: N crowns; index: int64 `[P]`; boxes_xyxy_px: `[P, 4]`.

    Returns:
        `[P, size, size]` in 0..1, of the boxes' dtype.
    """
    n = size * samples
    steps = (torch.arange(n, device=boxes_xyxy_px.device, dtype=boxes_xyxy_px.dtype) + 0.5) / n
    x0, y0, x1, y1 = boxes_xyxy_px.unbind(1)
    rect = masks.rect_xywh_px[index]
    xs = x0[:, None] + steps * (x1 - x0)[:, None] - rect[:, :1] - 0.5
    ys = y0[:, None] + steps * (y1 - y0)[:, None] - rect[:, 1:2] - 0.5
    value = _bilinear(masks, index, xs, ys)
    return value.reshape(-1, size, samples, size, samples).mean(dim=(2, 4))


def _bilinear(masks: CroppedMasks, index: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Read crowns `index` at `[P, n]` columns and rows of their own rectangles (outside is 0) -> `[P, n, n]`."""
    pixels, start = masks.pixels, masks.starts[index]
    w, h = masks.rect_xywh_px[index, 2], masks.rect_xywh_px[index, 3]
    out = torch.zeros(xs.shape[0], ys.shape[1], xs.shape[1], dtype=xs.dtype, device=xs.device)
    if pixels.numel() == 0:
        return out
    xf, yf = xs.floor(), ys.floor()
    for dy in (0, 1):
        row = yf.long() + dy
        wy = (1 - (ys - row.to(ys.dtype)).abs()).clamp(min=0) * ((row >= 0) & (row < h[:, None]))
        for dx in (0, 1):
            col = xf.long() + dx
            wx = (1 - (xs - col.to(xs.dtype)).abs()).clamp(min=0) * ((col >= 0) & (col < w[:, None]))
            at = start[:, None, None] + row[:, :, None] * w[:, None, None] + col[:, None, :]
            value = pixels[at.clamp(0, pixels.numel() - 1)].to(xs.dtype)
            out += value * wy[:, :, None] * wx[:, None, :]
    return out


def paste(
    probabilities: Tensor, boxes_xyxy_px: Tensor, height: int, width: int, threshold: float = 0.5
) -> CroppedMasks:
    """Predicted `[N, m, m]` masks, each stretched over its box, cut off at the picture and thresholded.

    The grid's cell centres lie at (i + 0.5) / m of the box; beyond the outermost centres the edge value holds.
    """
    x0 = boxes_xyxy_px[:, 0].floor().clamp(0, width).long()
    y0 = boxes_xyxy_px[:, 1].floor().clamp(0, height).long()
    x1 = boxes_xyxy_px[:, 2].ceil().clamp(0, width).long()
    y1 = boxes_xyxy_px[:, 3].ceil().clamp(0, height).long()
    rect = torch.stack([x0, y0, (x1 - x0).clamp(min=0), (y1 - y0).clamp(min=0)], dim=1)
    parts = [
        _paste_chunk(probabilities[s], boxes_xyxy_px[s], rect[s], threshold) for s in _chunks(rect[:, 2] * rect[:, 3])
    ]
    pixels = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.uint8, device=rect.device)
    return CroppedMasks(pixels, rect)


def _chunks(sizes: Tensor) -> list[slice]:
    """Consecutive slices of about CHUNK_PX pixels (one crown may be larger)."""
    out, first, held = [], 0, 0
    for i, size in enumerate(sizes.tolist()):
        if held and held + size > CHUNK_PX:
            out.append(slice(first, i))
            first, held = i, 0
        held += size
    return [*out, slice(first, len(sizes))] if len(sizes) else []


def _paste_chunk(probabilities: Tensor, boxes: Tensor, rect: Tensor, threshold: float) -> Tensor:
    m = probabilities.shape[-1]
    sizes = rect[:, 2] * rect[:, 3]
    owner = torch.repeat_interleave(torch.arange(len(rect), device=rect.device), sizes)
    offset = torch.arange(owner.shape[0], device=rect.device) - (torch.cumsum(sizes, 0) - sizes)[owner]
    w = rect[owner, 2]
    row, col = torch.div(offset, w, rounding_mode="floor"), offset % w
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    u = (rect[owner, 0] + col + 0.5 - boxes[owner, 0]) / side[owner, 0] * m - 0.5
    v = (rect[owner, 1] + row + 0.5 - boxes[owner, 1]) / side[owner, 1] * m - 0.5
    u, v = u.clamp(0, m - 1), v.clamp(0, m - 1)
    u0, v0 = u.floor().clamp(max=m - 2).long(), v.floor().clamp(max=m - 2).long()
    fu, fv = u - u0, v - v0
    flat = probabilities.to(boxes.dtype).reshape(-1)
    at = owner * m * m + v0 * m + u0
    top = flat[at] * (1 - fu) + flat[at + 1] * fu
    bottom = flat[at + m] * (1 - fu) + flat[at + m + 1] * fu
    return (top * (1 - fv) + bottom * fv >= threshold).to(torch.uint8)
