"""What trying pages in this process leaves behind is put back."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _main_stays() -> Iterator[None]:
    """Streamlit puts a module of its own in the place of `__main__`, which processes spawned later would run."""
    kept = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = kept
