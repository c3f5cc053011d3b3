"""Probes that run in a child process: what the network computes with, on one device, each against a known answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align

from cabruca.doctor.lines import Said
from cabruca.runtime import TorchProbe

SIDE = 32


def convolution(device: str) -> Said:
    """A channels-last convolution, forward and backward, against float64."""
    return _like_float64(nn.Conv2d(8, 16, 3, padding=1), torch.randn(2, 8, SIDE, SIDE), device, 1e-3)


def depthwise_bf16(device: str) -> Said:
    """A depthwise convolution under bf16 autocast, against float64."""
    return _like_float64(nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.randn(2, 8, SIDE, SIDE), device, 0.1, bf16=True)


def group_norm(device: str) -> Said:
    """GroupNorm, forward and backward, against float64."""
    return _like_float64(nn.GroupNorm(4, 16), torch.randn(2, 16, SIDE, SIDE), device, 1e-3)


def upsampling(device: str) -> Said:
    """Bilinear interpolation, forward and backward, against float64."""
    layer = nn.Upsample(scale_factor=4.0, mode="bilinear", align_corners=False)
    return _like_float64(layer, torch.randn(2, 8, SIDE, SIDE), device, 1e-3)


def transposed_convolution(device: str) -> Said:
    """The upsampling of the mask head, forward and backward, against float64."""
    return _like_float64(nn.ConvTranspose2d(8, 8, 2, stride=2), torch.randn(2, 8, SIDE, SIDE), device, 1e-3)


def nms(device: str) -> Said:
    """Of two boxes that overlap one stays; boxes of another class and elsewhere stay."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [1, 1, 11, 11], [40, 40, 50, 50]], device=device)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6], device=device)
    kept = batched_nms(boxes, scores, torch.tensor([1, 1, 2, 1], device=device), 0.5).tolist()
    if kept != [0, 2, 3]:
        raise RuntimeError(f"kept boxes {kept} and [0, 2, 3] is right")
    return Said(f"right on {device}")


def roi(device: str) -> Said:
    """RoI pooling of a ramp gives the ramp's values at the bins' centres; its gradient comes back."""
    ramp = torch.arange(16.0, device=device).expand(1, 1, 16, 16).clone().requires_grad_()
    box = torch.tensor([[0.0, 4.0, 4.0, 12.0, 12.0]], device=device)
    pooled = roi_align(ramp, box, 4, sampling_ratio=2, aligned=True)
    wanted = torch.tensor([4.5, 6.5, 8.5, 10.5]).expand(1, 1, 4, 4)
    (gradient,) = torch.autograd.grad(pooled.sum(), ramp)
    grad = float(gradient.sum())
    if not torch.allclose(pooled.cpu(), wanted, atol=1e-4) or abs(grad - 16) > 1e-3:
        raise RuntimeError(f"a ramp is pooled to {pooled[0, 0, 0].tolist()} with a gradient of {grad:.3f}")
    return Said(f"right on {device}")


def optimizer_step(device: str) -> Said:
    """Twenty AdamW steps make a small loss smaller."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 1).to(device)
    x = torch.randn(32, 4, device=device)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.mse_loss(layer(x), x.sum(dim=1, keepdim=True))
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    if not losses[-1] < 0.5 * losses[0]:
        raise RuntimeError(f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f}")
    return Said(f"works on {device}")


def bf16_speed(device: str) -> Said:
    """A stack of convolutions, forward and backward, in fp32 and under bf16 autocast."""
    if not TorchProbe().bf16(device):
        return Said(f"{device} has no bf16 instructions; training.mixed_precision falls back by itself")
    body = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)).to(device)
    x = torch.randn(4, 64, 64, 64, device=device).to(memory_format=torch.channels_last)
    plain = _median_s(lambda: body(x).sum().backward(), device)

    def mixed() -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            out = body(x)
        out.float().sum().backward()

    gain = plain / _median_s(mixed, device)
    text = f"bf16 is {gain:.1f} x as fast as fp32 on {device}"
    if gain < 1.0:
        return Said(text, "warning", "leave training.mixed_precision off, or look what else is running here")
    return Said(text)


def compiling(device: str) -> Said:
    """torch.compile of a small module gives the plain module's numbers, backward too."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU()).to(device)
    x = torch.randn(2, 4, 16, 16, device=device)
    wanted = layer(x).detach()
    found = torch.compile(layer)(x)
    found.sum().backward()
    error = float((found - wanted).abs().max())
    if error > 1e-3:
        raise RuntimeError(f"the compiled module differs by {error:.2g}")
    return Said(f"works on {device}")


def _like_float64(layer: nn.Module, x: Tensor, device: str, tolerance: float, *, bf16: bool = False) -> Said:
    torch.manual_seed(0)
    exact = _out_and_gradient(layer.double(), x.double())
    layer = layer.float().to(device)
    moved = x.to(device).to(memory_format=torch.channels_last)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        found = _out_and_gradient(layer, moved)
    for name, a, b in zip(("output", "gradient"), exact, found, strict=True):
        error = float((a - b.double().cpu()).abs().max() / a.abs().max())
        if not error <= tolerance:  # NaN too
            raise RuntimeError(f"its {name} on {device} is off by {error:.2g} of the largest value")
    return Said(f"right on {device}")


def _out_and_gradient(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = layer(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=x.dtype, device=x.device).view_as(out)
    (gradient,) = torch.autograd.grad((out.to(x.dtype) * weights).sum(), x)
    return out.detach(), gradient


def _median_s(work: Callable[[], None], device: str, times: int = 7) -> float:
    """Median of `times` runs after two that are not counted, seconds."""
    taken = []
    for _ in range(times + 2):
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        elif device == "mps":
            torch.mps.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[2:])
