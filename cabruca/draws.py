"""Random numbers that depend on what they are for, and on nothing else.

Every draw in training is a function of (seed, epoch, sample index, position), made with a counter-based hash,
so the number of loader processes, ranks, accumulation steps or restarts changes none of them, and one candidate
more or less changes only its own number. A leaf: it imports torch only.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def _mix(z: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators")."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def draw_key(*parts: int) -> int:
    """A 63-bit key from integers such as (seed, epoch, index); order matters."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = _mix((state + 0x9E3779B97F4A7C15) & _MASK ^ _mix(part & _MASK))
    return state >> 1


def uniform(key: int, n: int, device: torch.device | str = "cpu") -> Tensor:
    """float32 `[n]` in [0, 1): number i depends on (key, i) alone, the same on every device.

    Works in 32-bit halves held in int64 (murmur3's finaliser), because 64-bit unsigned products are not
    offered by every backend.
    """
    low, high = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    x = torch.arange(n, dtype=torch.int64, device=device)
    x = _fmix32((x * 0x9E3779B1 + low) & 0xFFFFFFFF)
    x = _fmix32(x ^ high)
    return (x >> 8).to(torch.float32) * (1.0 / (1 << 24))


def _fmix32(x: Tensor) -> Tensor:
    """murmur3's 32-bit finaliser on int64 values below 2**32."""
    x = x ^ (x >> 16)
    x = _mul32(x, 0x85EBCA6B)
    x = x ^ (x >> 13)
    x = _mul32(x, 0xC2B2AE35)
    return x ^ (x >> 16)


def _mul32(x: Tensor, factor: int) -> Tensor:
    """`x * factor mod 2**32` without overflowing int64: the factor in two 16-bit halves."""
    return (x * (factor & 0xFFFF) + (((x * (factor >> 16)) & 0xFFFF) << 16)) & 0xFFFFFFFF
