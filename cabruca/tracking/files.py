"""Small files that other programs read while we write them: whole or not at all, and JSON without NaN."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Replace `path` by `content`: a reader sees the old file or the new one, never half of one.

    Args:
        durable: also flush to disk, so that a power cut leaves one of the two; not needed for a heartbeat.

    Raises:
        OSError: the disk is full, or the folder may not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become None, tuples lists, other objects their text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [plain(v) for v in value]
    try:
        return plain(float(value))  # numpy and torch scalars
    except (TypeError, ValueError):
        return str(value)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON (no NaN) of `plain(value)`, on one line unless `indent`."""
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False, indent=indent)
