"""Fixtures of the whole suite. One compute thread: tests must not fight over the cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

torch.set_num_threads(1)

TESTS = Path(__file__).resolve().parent
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests are shared by processes, a file stays in one, and all that start Ray stay in one: two clusters on a
    machine disturb each other."""
    for item in items:
        file = item.path.relative_to(TESTS)
        alone = file.parts[0] == "distributed" or item.get_closest_marker("ray") is not None
        item.add_marker(pytest.mark.xdist_group("ray" if alone else file.as_posix()))


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """`real_data("oil_palm_uav")`: the folder of a real data set, or a skip that says why."""

    def find(name: str) -> Path:
        folder = SHARED / "data" / name
        if not folder.is_dir():
            pytest.skip(f"real data set '{name}' is not at {folder} (it is not part of the project)")
        return folder

    return find


@pytest.fixture(scope="session")
def predecessor() -> Path:
    """The folder with the predecessor's README, values and faults, or a skip."""
    folder = SHARED / "predecessor"
    if not folder.is_dir():
        pytest.skip(f"the predecessor's files are not at {folder} (they are not part of the project)")
    return folder
