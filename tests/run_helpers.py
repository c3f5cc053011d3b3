"""A two-parameter line fit as a Task, so that whole runs take milliseconds; also a script for child processes."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cabruca.config.load import config_from_dict
from cabruca.config.schema import Config
from cabruca.draws import draw_key, uniform
from cabruca.runtime import Runtime
from cabruca.train.protocols import Autocast, Losses, Picture, State, Validation

NUM_SAMPLES = 22  # not a multiple of the batch: the last step of an epoch is short


class LineTask:
    """Fits y = 2 x + 1 with samples that are a function of (seed, epoch, index).

    Environment variables, for child processes: LINE_SLEEP_S slows each batch; LINE_DIE raises at that epoch.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.sleep_s = float(os.environ.get("LINE_SLEEP_S", "0"))
        self.die_at = int(os.environ.get("LINE_DIE", "-1"))

    def build_model(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.config.training.seed)
            return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))

    def parameter_part(self, name: str) -> str:
        return "backbone" if name.startswith("0.") else "heads"

    def num_train_samples(self, epoch: int) -> int:
        return NUM_SAMPLES

    def train_batches(
        self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime
    ) -> Iterable[tuple[Tensor, Tensor]]:
        if epoch == self.die_at:
            raise RuntimeError("the line broke\nsecond line of the message")
        for indices in index_batches:
            time.sleep(self.sleep_s)
            x = torch.stack([uniform(draw_key(self.config.training.seed, epoch, i), 1) for i in indices])
            yield x, 2 * x + 1

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        x, y = batch
        error = ((model(x) - y) ** 2).squeeze(1)
        return Losses(total=error, parts={"loss_instance": error.detach()})

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        x = torch.linspace(0, 1, 16)[:, None]
        with torch.no_grad():
            loss = float(((model(x) - 2 * x - 1) ** 2).mean())
        red = np.zeros((8, 8, 3), dtype=np.uint8)
        red[..., 0] = 200
        metrics = {"total_loss": loss, "mAP_50": 1 / (1 + loss), "undefined": float("nan")}
        return Validation(metrics, [Picture("line 1", red)])

    def state(self) -> State:
        return {"kind": "line"}


def line_config(output_dir: Path | str, **dotted: Any) -> Config:
    """A configuration for LineTask: `line_config(tmp_path, training__num_epochs=3)`."""
    raw: dict[str, Any] = {
        "output_dir": str(output_dir),
        "device": "cpu",
        "data": {"batch_size": 4, "num_workers": 0},
        "optimizer": {"lr": 0.01},
        "training": {"num_epochs": 3, "log_interval": 2, "save_frequency": 2, "early_stopping_patience": 0},
        "tracking": {"tensorboard": False},
    }
    for key, value in dotted.items():
        here, *rest = key.split("__")
        if rest:
            raw.setdefault(here, {})[rest[0]] = value
        else:
            raw[here] = value
    return config_from_dict(raw)


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, strictly parsed (a NaN or half a line is an error)."""

    def refuse(text: str) -> None:
        raise ValueError(text)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def same_state(a: Any, b: Any) -> bool:
    """Bitwise equality of checkpoint states, without what tells the time."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        skip = {"elapsed_s", "train_s", "wait_s"}
        return a.keys() == b.keys() and all(same_state(a[k], b[k]) for k in a.keys() - skip)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_state, a, b))
    return bool(a == b)


def child_command(config_json: Path, *options: str) -> list[str]:
    """A process that runs LineTask: `python run_helpers.py config.json [--resume X]`."""
    return [sys.executable, str(Path(__file__)), str(config_json), *options]


def _hang_in_write(number: int, marker: Path) -> None:
    """Make the `number`-th checkpoint write stop half way, say so with a file, and wait to be killed."""
    real, count = torch.save, 0

    def save(state: Any, file: Any) -> None:
        nonlocal count
        count += 1
        if count < number:
            real(state, file)
            return
        whole = io.BytesIO()
        real(state, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        marker.touch()
        time.sleep(120)

    torch.save = save


def _main() -> int:
    from cabruca.run import run_training

    if "LINE_HANG_MARKER" in os.environ:
        _hang_in_write(3, Path(os.environ["LINE_HANG_MARKER"]))
    config = config_from_dict(json.loads(Path(sys.argv[1]).read_text()))
    resume = sys.argv[3] if len(sys.argv) > 3 else None
    return run_training(config, resume=resume, task_factory=LineTask).exit_code


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(_main())
