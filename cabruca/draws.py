"""Random numbers that depend on what they are for, and on nothing else.

Every draw in training is a function of (seed, epoch, sample index, position), made with a counter-based hash,
so the number of loader processes, ranks, accumulation steps or restarts changes none of them, and one candidate
more or less changes only its own number. A leaf: it imports numpy and torch only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
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

    Made by numpy, which has products modulo 2**32, and sent to the device: there each of the two dozen operations on so
    few numbers costs more than the way (on an H200 they were a quarter of all operations of a step).
    """
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32((key >> 32) & 0xFFFFFFFF)
    x = np.arange(n, dtype=np.uint32)
    x = _fmix32(x * np.uint32(0x9E3779B1) + low)
    x = _fmix32(x ^ high)
    return torch.from_numpy((x >> np.uint32(8)).astype(np.float32) * np.float32(1.0 / (1 << 24))).to(device)


def _fmix32(x: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """murmur3's 32-bit finaliser."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))
