"""Launch files: where they lie, and how the token of a cluster reaches a process of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def kuberay() -> Path:
    """The folder with KubeRay's resource definitions, or a skip."""
    folder = SHARED / "kuberay"
    if not folder.is_dir():
        pytest.skip(f"KubeRay's schemas are not at {folder} (they are not part of the project)")
    return folder
