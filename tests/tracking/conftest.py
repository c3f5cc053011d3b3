"""Fixtures of the trackers' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_mlflow_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment without MLFLOW_*, and as it was before afterwards: trackers set variables of their own."""
    for name in [n for n in os.environ if n.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    before = set(os.environ)
    yield
    for name in set(os.environ) - before:
        os.environ.pop(name)
