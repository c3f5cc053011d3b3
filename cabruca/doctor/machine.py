"""Memory, shared memory, disk, open files: what a training runs out of first.

The disk is a probe for a child process: a network file system that is away holds whoever asks it, for ever.
No torch is imported here or in any module that doctor runs outside its children: it may be what is broken.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from cabruca.doctor.lines import Line, Said

GIB = 2**30
SHARED = Path("/dev/shm")
ENOUGH_SHARED_GIB = 1.0
"""Loader processes hand batches over in shared memory: one of four 512 px pictures is about 20 MB, several wait."""

ENOUGH_DISK_GIB = 5.0
"""The standard network keeps best, latest and a checkpoint every ten epochs, 0.5 GB each with the optimizer."""

ANOTHER = "choose another --output-dir"

ENOUGH_MEMORY_GIB = 4.0
ENOUGH_FILES = 1024
"""Each batch that loader processes hand over holds a few files open."""


def machine_lines() -> list[Line]:
    """A line for each of memory, shared memory and open files."""
    return [_memory(), *_shared(), *_open_files()]


def _memory() -> Line:
    memory = psutil.virtual_memory()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB are free"
    if memory.available < ENOUGH_MEMORY_GIB * GIB:
        remedy = "close other programs, or take the light preset with --batch-size 1 --grad-accum 4"
        return Line("memory", "warning", text, remedy)
    return Line("memory", "ok", text)


def _shared() -> Iterator[Line]:
    if not SHARED.is_dir():  # macOS and Windows hand over in other ways
        return
    usage = shutil.disk_usage(SHARED)
    text = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB in {SHARED} are free"
    if usage.free < ENOUGH_SHARED_GIB * GIB:
        remedy = "start the container with --shm-size=8g (or --ipc=host), or set data.num_workers: 0"
        yield Line("shared memory", "warning", text, remedy)
    else:
        yield Line("shared memory", "ok", text)


def disk(argument: str) -> Said:
    """Probe: can the folder `argument`, or the one that it will be made in, be written, and is there room?"""
    folder = Path(argument)
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        why = error.strerror or str(error)
        return Said(f"{folder} cannot be written ({why})", "error", ANOTHER)
    free = shutil.disk_usage(there).free
    text = f"{free / GIB:.1f} GiB are free where {folder} is"
    if free < ENOUGH_DISK_GIB * GIB:
        remedy = "free some, choose another --output-dir, or thin out runs with cabruca checkpoints prune"
        return Said(text, "warning", remedy)
    return Said(text)


def _open_files() -> Iterator[Line]:
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = soft == resource.RLIM_INFINITY
    text = "no limit" if endless else f"{soft} at once"
    if not endless and soft < ENOUGH_FILES:
        most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        yield Line("open files", "warning", text, f"ulimit -n {most}, or set data.num_workers: 0")
    else:
        yield Line("open files", "ok", text)
