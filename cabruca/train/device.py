"""What the loop asks of the device: how much memory is in use, and to let go of its cache or of an earlier peak."""

from __future__ import annotations

import psutil
import torch

from cabruca.train.protocols import Metrics


def memory(device: torch.device) -> Metrics:
    """MB: the peak of tensors on CUDA, what the process holds now elsewhere."""
    if device.type == "cuda":
        return {"memory/cuda_mb": torch.cuda.max_memory_allocated(device) / 2**20}
    return {"memory/rss_mb": psutil.Process().memory_info().rss / 2**20}


def forget_peak(device: torch.device) -> None:
    """Let the peak begin anew: CUDA counts it over the whole process, and an earlier run's would hide this one's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def empty_cache(device: torch.device) -> None:
    """Give cached memory back to the driver; nothing on a CPU, which has no such cache."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
