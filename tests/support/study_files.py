"""A study in files, of which a test changes a few keys; and the line that a mistake is refused in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cabruca.config.load import to_yaml
from cabruca.config.study import Study, load_study
from cabruca.errors import ConfigError

SPACE = {"optimizer.lr": {"loguniform": [5.0e-5, 2.0e-3]}, "scheduler.T_max": {"choice": [3, 6]}}
BASE: dict[str, Any] = {
    "output_dir": "somewhere",
    "experiment_name": "mine",
    "optimizer": {"lr": 5e-4, "param_groups": [{"name": "backbone", "lr": 5e-5}]},
    "scheduler": {"type": "cosine", "T_max": 50},
    "training": {"num_epochs": 50, "save_frequency": 5, "seed": 4},
    "validation": {"frequency": 5},
    "data": {"test_annotations": "held_out.json"},
}


class StudyFiles:
    """study.yaml and base.yaml in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, overrides: dict[str, Any] | None = None, *, base: dict[str, Any] | None = None, **keys: Any
    ) -> Study:
        """Write both and load: `keys` of the study ("absent": left out), sections of the `base`, flags."""
        (self.folder / "base.yaml").write_text(to_yaml({**BASE, **(base or {})}))
        raw = {"name": "mine", "config": "base.yaml", "max_epochs": 9, "search_space": SPACE, **keys}
        (self.folder / "study.yaml").write_text(to_yaml({k: v for k, v in raw.items() if v != "absent"}))
        return load_study(self.folder / "study.yaml", overrides)


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)
