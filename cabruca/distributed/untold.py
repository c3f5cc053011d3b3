"""What a trial did and saved, and its study has not heard: a kill fell in between."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from cabruca.tracking.run_dir import RunDir
from cabruca.train import checkpoint


def untold(run_dir: RunDir, known: int) -> Iterator[dict[str, Any]]:
    """Rows of the history of epochs after `known` that a checkpoint vouches for."""
    newest = checkpoint.newest_intact(run_dir.checkpoints)
    if newest is None:
        return
    saved = int((checkpoint.sidecar_of(newest) or {}).get("epoch") or 0)
    for line in run_dir.metrics.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # torn by a kill
            row = json.loads(line)
            if "time/epoch_s" in row and known < row["epoch"] <= saved:
                yield row


def with_nan(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    """The metrics that a row has as null."""
    return {name: float("nan") for name in names if name in row and row[name] is None}
