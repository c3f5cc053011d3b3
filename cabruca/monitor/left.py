"""What else a run leaves: pictures, settings, environment, the end of its log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.config.keys import leaves
from cabruca.config.redact import redact
from cabruca.config.views import plain
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.runs import read_settings

PICTURES = (".png", ".jpg", ".jpeg")
LARGEST_PICTURE = 40_000_000
"""Bytes; a larger file is not sent to the browser."""

_EPOCH = re.compile(r"epoch[_-]?0*(\d+)")


def pictures_by_epoch(run: RunDir) -> dict[int | None, list[Path]]:
    """Validation pictures in predictions/ by the epoch in the name of file or folder; None: the newest validation's."""
    found: dict[int | None, list[Path]] = {}
    for path in _pictures(run.predictions, deep=True):
        epoch = _EPOCH.search(path.relative_to(run.predictions).as_posix())
        found.setdefault(int(epoch[1]) if epoch else None, []).append(path)
    return dict(sorted(found.items(), key=lambda item: (item[0] is None, item[0] or 0)))


def plots_of(run: RunDir) -> list[Path]:
    """Pictures in plots/, results.png first."""
    return sorted(_pictures(run.plots), key=lambda path: (path.name != "results.png", path.name))


def test_pictures(run: RunDir) -> list[Path]:
    """Pictures of the test at the end of the run."""
    return _pictures(run.test, deep=True)


def _pictures(folder: Path, *, deep: bool = False) -> list[Path]:
    found: list[Path] = []
    if folder.is_symlink():
        return found
    try:
        for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
            fits = path.suffix.lower() in PICTURES and not path.name.startswith(".")
            if fits and not path.is_symlink() and path.is_file() and path.stat().st_size <= LARGEST_PICTURE:
                found.append(path)
    except OSError:  # gone meanwhile
        pass
    return found


@dataclass(frozen=True)
class Setting:
    """A key of the configuration: its value, today's default, and whether they differ."""

    key: str
    value: Any
    default: Any
    differs: bool


def settings_of(run: RunDir) -> list[Setting]:
    """Every key of the run's configuration in the schema's order, secrets hidden.

    A key of another release has no default.

    Raises:
        RunError: there is no configuration that can be read.
    """
    defaults = {key: plain(value) for key, value in leaves()}
    values: Mapping[str, Any] = redact(read_settings(run))
    return [
        Setting(key, value, defaults.get(key), key not in defaults or value != redact({key: defaults[key]})[key])
        for key, value in values.items()
    ]


def environment_of(run: RunDir) -> dict[str, str]:
    """What environment.json tells, flat: `packages.torch` -> `2.14.1`; empty where there is none."""
    try:
        found = json.loads(run.environment.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    out: dict[str, str] = {}
    for key, value in redact(found).items() if isinstance(found, dict) else ():
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        out |= {f"{key}.{name}".rstrip("."): "-" if one is None else str(one) for name, one in parts}
    return out


def tail(path: Path, lines: int = 200, most_bytes: int = 200_000) -> str:
    """The last lines of a text file; empty where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most_bytes))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
