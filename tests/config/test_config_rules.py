"""Rules over several values: one line that holds the value, the rule and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from cabruca.config.load import config_from_dict
from cabruca.errors import ConfigError

RULES = [
    (
        {"model": {"anchor_sizes_px": [16, 32, 64]}},
        "model.anchor_sizes_px: [16, 32, 64] is not a list of 4 or more values; give at least 4, not 3",
    ),
    ({"model": {"anchor_ratios": []}}, "model.anchor_ratios: [] is not a list of 1 or more values; give at least 1"),
    ({"data": {"bands": []}}, "data.bands: [] is not a list of 1 or more values; give at least 1, not 0"),
    (
        {"data": {"augmentation": {"scale_range": [1.25, 0.8]}}},
        "data.augmentation.scale_range begins with 1.25 and ends with 0.8; write [0.8, 1.25]",
    ),
    (
        {"model": {"heads": ["instance", "semantic", "instance"]}},
        "model.heads names one twice: instance, semantic, instance; name each once",
    ),
    ({"training": {"unfreeze": [{"epoch": 1, "part": ""}]}}, 'training.unfreeze[0].part: "" is not a name; write'),
    (
        {"data": {"overlap": 96}, "validation": {"max_side_px": 96}},
        "data.overlap 96 is not smaller than validation.max_side_px 96; use 12",
    ),
]


@pytest.mark.parametrize(("raw", "line"), RULES, ids=[line.split(" ")[0] for _, line in RULES])
def test_a_broken_rule_is_one_line(raw: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_from_dict(raw)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "raw",
    [
        {"model": {"anchor_sizes_px": [16, 32, 64, 128], "anchor_ratios": [1.0]}},
        {"data": {"bands": [4], "augmentation": {"scale_range": [1.0, 1.0]}}},
        {"data": {"overlap": 64}, "validation": {"max_side_px": 96}},
    ],
)
def test_what_just_keeps_the_rule_loads(raw: dict[str, Any]) -> None:
    config_from_dict(raw)
