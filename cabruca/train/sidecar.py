"""What vouches for a checkpoint file: its sidecar `name.json` with size and sha256. No torch, nothing is unpickled.

`train/checkpoint.py` writes both and says in which order; here they are read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

Sidecar = dict[str, Any]


def is_intact(path: str | Path) -> bool:
    """Whether the file is there and its sidecar's sha256 holds."""
    return vouched(Path(path)) is True


def newest_intact(folder: str | Path) -> Path | None:
    """The checkpoint in `folder` that was written last among those that are intact; None where there is none."""
    folder = Path(folder)

    def age(path: Path) -> tuple[float, int, str]:
        sidecar = sidecars(path)[0] if sidecars(path) else {}
        # `latest` wins over other names of the same content: it is the one that goes on
        return float(sidecar.get("time") or 0.0), int(sidecar.get("step") or 0), path.name

    candidates = sorted(folder.glob("*.pth"), key=age, reverse=True) if folder.is_dir() else []
    return next((path for path in candidates if is_intact(path)), None)


def sidecar_of(path: str | Path) -> Sidecar | None:
    """The sidecar whose sha256 is that of the file, else None."""
    path = Path(path)
    if not path.is_file():
        return None
    digest: str | None = None
    for sidecar in sidecars(path):
        if sidecar.get("bytes") == path.stat().st_size:
            digest = digest or sha256_of(path)
            if sidecar.get("sha256") == digest:
                return sidecar
    return None


def vouched(path: Path) -> bool | None:
    """True: a sidecar's sha256 holds; False: there are sidecars and none holds; None: there is no sidecar."""
    if not path.is_file() or not sidecars(path):
        return None
    return sidecar_of(path) is not None


def sidecars(path: Path) -> list[Sidecar]:
    """The published sidecar and, after a kill between the two renames, the prepared one (newest first)."""
    out = []
    for name in (temporary_name(path.with_suffix(".json")), path.with_suffix(".json")):
        try:
            value = json.loads(name.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(value, dict):
            out.append(value)
    return out


def temporary_name(path: Path) -> Path:
    """One hidden name a file, so that kills leave at most one behind and the next write removes it."""
    return path.with_name(f".{path.name}.tmp")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
