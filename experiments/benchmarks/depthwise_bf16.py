"""Backward pass of depthwise convolutions on a CPU: bf16 beside fp32, in both memory formats.

Why the network keeps them out of bf16 autocast (`cabruca/model/backbone.py`). The shapes are those of
tf_efficientnet_lite0 on four windows of 256 px.

    python experiments/benchmarks/depthwise_bf16.py
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

SHAPES = [(96, 129, 3, 2), (144, 67, 5, 2), (240, 32, 5, 1), (672, 16, 5, 1), (1152, 8, 5, 1)]
"""Channels, side, kernel, stride."""


def milliseconds(shape: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool, repeats: int = 7) -> float:
    """Best backward pass of `repeats`."""
    channels, side, kernel, stride = shape
    order = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(4, channels, side, side, dtype=dtype).contiguous(memory_format=order).requires_grad_()
    weight = torch.randn(channels, 1, kernel, kernel, dtype=dtype).contiguous(memory_format=order).requires_grad_()
    best = float("inf")
    for _ in range(repeats):
        y = F.conv2d(x, weight, None, stride, 0 if stride == 2 else kernel // 2, 1, channels)
        grad = torch.ones_like(y)
        began = time.perf_counter()
        y.backward(grad)
        best = min(best, time.perf_counter() - began)
    return best * 1e3


def main() -> None:
    for shape in SHAPES:
        for channels_last in (True, False):
            full, half = (milliseconds(shape, d, channels_last) for d in (torch.float32, torch.bfloat16))
            order = "channels_last" if channels_last else "contiguous"
            print(f"{shape!s:<20} {order:<14} fp32 {full:6.1f} ms   bf16 {half:6.1f} ms   ratio {half / full:5.1f}")


if __name__ == "__main__":
    main()
