"""autopsy.json: why a trial failed, in words, beside its run."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from cabruca.config.schema import Config
from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.secrets import hide

NAME = "autopsy.json"


def write_autopsy(run_dir: RunDir, config: Config, error: BaseException, epoch: int) -> str:
    """Write what the trial's process knows; the driver adds the difference from the best (`complete`).

    Returns:
        The failure in one line.
    """
    said = one_line(error)
    memory = [*_peaks(run_dir, "memory/rss_mb"), psutil.Process().memory_info().rss / 2**20]
    trace = "".join(traceback.format_exception(error)).splitlines()[-40:]
    _write(
        run_dir,
        said,
        epoch,
        trace=[hide(line) for line in trace],
        memory_peak_mb=round(max(memory), 1),
        gpu_memory_peak_mb=_peak([*_peaks(run_dir, "memory/cuda_mb"), *_of_gpu()]),
    )
    return said


def _of_gpu() -> list[float]:
    """The peak of this process's tensors on its GPU since the run began; nothing where it computed on none."""
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [torch.cuda.max_memory_allocated() / 2**20] if begun else []


def write_autopsy_of_dead(run_dir: RunDir, said: str, epoch: int) -> None:
    """Of a trial whose process left nothing: written by the driver."""
    of_process, of_gpu = (_peak(_peaks(run_dir, f"memory/{name}_mb")) for name in ("rss", "cuda"))
    _write(run_dir, said, epoch, trace=[], memory_peak_mb=of_process, gpu_memory_peak_mb=of_gpu)


def _peaks(run_dir: RunDir, name: str) -> list[float]:
    return [row[name] for row in _rows(run_dir) if row.get(name)]


def _peak(found: Sequence[float]) -> float | None:
    return round(max(found), 1) if found else None


def complete(run_dir: RunDir, params: Mapping[str, Any], best: Mapping[str, Any] | None) -> None:
    """Add how the trial's parameters differ from those of the best trial so far: key -> [its, the best's]."""
    path = run_dir.path / NAME
    found = json.loads(path.read_text(encoding="utf-8"))
    others = best or {}
    keys = [key for key in {**params, **others} if params.get(key) != others.get(key)] if best is not None else []
    found["params"] = dict(params)
    found["difference_from_best"] = {key: [params.get(key), others.get(key)] for key in keys}
    write_atomic(path, to_json(found, indent=1) + "\n")


def one_line(error: BaseException) -> str:
    """`RuntimeError: the line broke`."""
    lines = hide(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _write(run_dir: RunDir, said: str, epoch: int, **more: Any) -> None:
    run_dir.path.mkdir(parents=True, exist_ok=True)
    last: dict[str, Any] = next((row for row in reversed(_rows(run_dir)) if "time/epoch_s" in row), {})
    found = {"exception": said, "reason": said, "epoch": epoch, "last_metrics": last, "time": time.time(), **more}
    write_atomic(run_dir.path / NAME, to_json(found, indent=1) + "\n")


def _rows(run_dir: RunDir) -> list[dict[str, Any]]:
    path: Path = run_dir.metrics
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
