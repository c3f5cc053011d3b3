"""What `auto` chooses for a task."""

from __future__ import annotations

from typing import Any

import pytest

from cabruca.config.load import config_from_dict
from cabruca.runtime import Runtime
from cabruca.task import pin_memory


@pytest.mark.parametrize(
    ("asked", "device", "pinned"),
    [
        ("auto", "cuda", True),
        ("auto", "cpu", False),
        ("auto", "mps", False),
        (None, "cuda", True),
        (True, "cpu", True),
        (False, "cuda", False),
    ],
)
def test_memory_is_pinned_where_it_helps_or_as_asked(asked: Any, device: str, pinned: bool) -> None:
    config = config_from_dict({"data": {"pin_memory": asked}})
    assert pin_memory(config, Runtime.single(device)) is pinned
