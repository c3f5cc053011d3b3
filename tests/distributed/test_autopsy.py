"""What is left to say of a trial that failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cabruca.config.load import config_from_dict
from cabruca.distributed.autopsy import write_autopsy, write_autopsy_of_dead
from cabruca.distributed.trial_reporter import result_of
from cabruca.study_report.parts import memory_peak
from cabruca.tracking.run_dir import RunDir


def folder(tmp_path: Path, **memory: float) -> RunDir:
    """A run of one epoch that said so much of its memory."""
    run_dir = RunDir(tmp_path / "trial_0001")
    run_dir.path.mkdir()
    row = {"epoch": 1, "step": 4, "time/epoch_s": 2.0, **{f"memory/{name}": mb for name, mb in memory.items()}}
    run_dir.metrics.write_text(json.dumps(row) + "\n")
    return run_dir


def autopsy(run_dir: RunDir) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir.path / "autopsy.json").read_text())
    return found


def test_a_gpus_memory_is_told_beside_the_processs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the step that did not fit had taken is in no record of an epoch: the GPU is asked."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 9.75 * 2**30)
    run_dir = folder(tmp_path, cuda_mb=4096.0)
    write_autopsy(run_dir, config_from_dict({}), RuntimeError("no"), 1)
    found = autopsy(run_dir)
    assert found["gpu_memory_peak_mb"] == 9984.0
    assert found["memory_peak_mb"] > 10
    assert memory_peak(found).endswith(" GB of the process, 9.75 GB of the GPU")


def test_without_a_gpu_nothing_is_said_of_one(tmp_path: Path) -> None:
    run_dir = folder(tmp_path, rss_mb=1e6)
    write_autopsy(run_dir, config_from_dict({}), RuntimeError("no"), 1)
    assert autopsy(run_dir)["gpu_memory_peak_mb"] is None
    assert memory_peak(autopsy(run_dir)) == "976.56 GB of the process"


def test_of_a_dead_process_the_records_are_left(tmp_path: Path) -> None:
    run_dir = folder(tmp_path, cuda_mb=4096.0)
    write_autopsy_of_dead(run_dir, "its process died", 1)
    assert memory_peak(autopsy(run_dir)) == "4.00 GB of the GPU"


@pytest.mark.parametrize("name", ["rss", "cuda"])
def test_a_result_says_how_much_memory_its_device_held(name: str) -> None:
    """The leaderboard's column stayed empty for trials on a GPU, which have no `memory/rss_mb`."""
    assert result_of(1, 4, {f"memory/{name}_mb": 1500.0}, 2.0)["memory_mb"] == 1500.0
