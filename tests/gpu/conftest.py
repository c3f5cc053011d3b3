"""What must be seen on a real CUDA device. Elsewhere the room is skipped before anything of it is imported.

CABRUCA_TEST_DEVICE=cpu lets the bodies of most tests run on a CPU, to try the tests themselves without a GPU.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

DEVICE = os.environ.get("CABRUCA_TEST_DEVICE", "cuda")
ABSENT = "no CUDA device here"


class _Skipped(pytest.Module):
    """A file that is not even imported."""

    def collect(self) -> list[pytest.Item]:  # type: ignore[override]
        raise pytest.skip.Exception(ABSENT, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if DEVICE == "cpu" or torch.cuda.is_available():
        return None
    return _Skipped.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(DEVICE)


@pytest.fixture(scope="session")
def cuda(device: torch.device) -> torch.device:
    """The device, where a CPU cannot stand in for it."""
    if device.type != "cuda":
        pytest.skip(ABSENT)
    return device


@pytest.fixture
def exact_fp32() -> Iterator[None]:
    """Convolutions in full float32: by torch's own default they round their inputs to TF32 on CUDA."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from drawn_farm import write_farm  # here: a machine without a GPU imports this file alone

    return write_farm(tmp_path_factory.mktemp("gpu_farm"))


@pytest.fixture(autouse=True)
def _give_back() -> Iterator[None]:
    """No test leaves memory for the next to stumble over."""
    yield
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
