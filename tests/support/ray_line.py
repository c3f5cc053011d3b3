"""The line fit on Ray workers: a local cluster, runs, and what kills them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray_tasks import FineLine
from run_helpers import line_config

from cabruca.config.load import config_from_dict
from cabruca.config.schema import Config
from cabruca.distributed.ray_train import train_on_workers
from cabruca.run import run_training
from cabruca.train import checkpoint
from cabruca.train.protocols import TrainResult


def many(output_dir: Path, workers: Any = 2, **dotted: Any) -> Config:
    """A line fit in fp64 on `workers`."""
    settings = {"experiment_name": "many", "training__precision": "fp64", "tracking__system_metrics_s": 0}
    return line_config(output_dir, **{**settings, "distributed__num_workers": workers, **dotted})


def on_workers(config: Config, **options: Any) -> TrainResult:
    return train_on_workers(config, task_factory=options.pop("task", FineLine), quiet=True, **options)


def alone(config: Config, **options: Any) -> TrainResult:
    """The same in this process, under another name."""
    own = config.model_copy(update={"experiment_name": "alone", "distributed": Config().distributed})
    return run_training(own, task_factory=options.pop("task", FineLine), quiet=True, **options)


def weights(config: Config, name: str | None = None, which: str = "latest") -> dict[str, torch.Tensor]:
    """Of a run's checkpoint."""
    folder = Path(config.output_dir) / (name or config.experiment_name or "")
    found: dict[str, torch.Tensor] = checkpoint.read(folder / "checkpoints" / f"checkpoint_{which}.pth")["model"]
    return found


def assert_same_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], rel: float = 1e-8) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=rel, atol=rel, msg=name)


def until(found: Callable[[], Any], timeout_s: float = 180) -> Any:
    """The first true value of `found()`."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"nothing within {timeout_s} s")


def worker_pids(run: Path, attempt: int = 0) -> list[int] | None:
    """Process ids of the workers, by rank, of the `attempt`-th group; None before they are at work."""
    log = run / "train.log"
    lines = re.findall(r"workers: (rank 0 .*)", log.read_text()) if log.is_file() else []
    return [int(pid) for pid in re.findall(r"is process (\d+)", lines[attempt])] if len(lines) > attempt else None


def epochs_done(run: Path) -> int:
    """Epochs that the run's history holds."""
    rows = run / "metrics.jsonl"
    return rows.read_text().count("time/epoch_s") if rows.is_file() else 0


def child(config: Config, *options: str, script: str = "ray_line.py", sleep_s: float = 0.0) -> subprocess.Popen[str]:
    """A driver in a process of its own, with a cluster of its own: `python ray_line.py config.json [auto]`.

    Args:
        sleep_s: how long a batch takes. options: further arguments.
    """
    file = Path(config.output_dir) / "driver.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, str(Path(__file__).with_name(script)), str(file), *options]
    environment = {**os.environ, "LINE_SLEEP_S": str(sleep_s)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], timeout_s: float = 150) -> tuple[int, str]:
    """Exit code and what it printed."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def _main() -> int:
    config = config_from_dict(json.loads(Path(sys.argv[1]).read_text()))
    resume = sys.argv[2] if len(sys.argv) > 2 else None
    return train_on_workers(config, resume=resume, task_factory=FineLine).exit_code


if __name__ == "__main__":
    sys.exit(_main())
