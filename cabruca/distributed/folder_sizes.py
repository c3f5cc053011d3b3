"""What a folder takes of the disk, and what of a run is given back."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cabruca.tracking.run_dir import RunDir


def drop_checkpoints(run_dir: RunDir) -> None:
    """Remove a run's checkpoints; their .json stay and say what was there."""
    for path in [*run_dir.checkpoints.glob("*.pth"), *run_dir.checkpoints.glob(".*.tmp")]:
        with contextlib.suppress(OSError):
            path.unlink()


def bytes_of(folder: Path) -> int:
    """Bytes of all files below a folder; a file with two names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                stat = Path(parent, name).stat()
                seen[(stat.st_dev, stat.st_ino)] = stat.st_size
    return sum(seen.values())
