"""Fixtures of the whole suite. One compute thread: tests must not fight over the cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


ONE_AT_A_TIME = ("tests/distributed/", "tests/cluster/", "tests/end_to_end/test_demo.py", "tests/gpu/")
"""These start Ray, or take a GPU's memory: two clusters on a machine disturb each other."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where processes share the tests, a file stays in one, and all that start Ray stay in one."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "ray" if nodeid.startswith(ONE_AT_A_TIME) else nodeid.split("::", 1)[0]

    return Rooms(config, log)


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
