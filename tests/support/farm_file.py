"""The drawn farm's configuration as a file, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from drawn_farm import farm_settings


def farm_file(farm: Path, output_dir: Path, path: Path) -> Path:
    """Write the configuration of the small light network on the farm to `path`."""
    raw: dict[str, Any] = {}
    for key, value in farm_settings(farm, output_dir).items():
        section, _, name = key.partition(".")
        if name:
            raw.setdefault(section, {})[name] = value
        else:
            raw[section] = value
    path.write_text(yaml.safe_dump(raw))
    return path
