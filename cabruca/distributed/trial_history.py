"""What a trial's run folder holds of its epochs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.train import checkpoint


def untold(run_dir: RunDir, known: int) -> Iterator[dict[str, Any]]:
    """Rows of the history of epochs after `known` that a checkpoint vouches for."""
    newest = checkpoint.newest_intact(run_dir.checkpoints)
    if newest is None:
        return
    saved = int((checkpoint.sidecar_of(newest) or {}).get("epoch") or 0)
    for line in _lines(run_dir):
        with contextlib.suppress(ValueError):  # torn by a kill
            row = json.loads(line)
            if "time/epoch_s" in row and known < row["epoch"] <= saved:
                yield row


def _lines(run_dir: RunDir) -> list[str]:
    """Of the history; none of a run that was stopped before its first row."""
    with contextlib.suppress(FileNotFoundError):
        return run_dir.metrics.read_text(encoding="utf-8").splitlines()
    return []


def with_nan(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    """The metrics that a row has as null."""
    return {name: float("nan") for name in names if name in row and row[name] is None}


def epoch_of(run_dir: RunDir, epoch: int) -> dict[str, float]:
    """Finite numbers of an epoch, from a run's history.

    Raises:
        RunError: the run has no such epoch.
    """
    for line in reversed(_lines(run_dir)):
        row = json.loads(line)
        if "time/epoch_s" in row and row["epoch"] == epoch:
            return {k: float(v) for k, v in row.items() if "/" in k and isinstance(v, int | float)}
    raise RunError(f"fold {run_dir.path} has no epoch {epoch}; remove its folder, and the trial trains it again")
