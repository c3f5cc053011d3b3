"""Files that are still there after a power cut: their content is on the disk before anything that counts on it is."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file's content is on the disk.

    Raises:
        OSError: the disk is full or fails.
    """
    with path.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def replace(source: Path, target: Path) -> None:
    """Give `source` the name `target`, on disk: content first, then the name.

    Raises:
        OSError: the disk is full or fails, or the folder may not be written.
    """
    sync(source)
    source.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows has no such call."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
