"""A Reporter that writes checkpoints into a folder with `checkpoint.write`, and may kill its process at a step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import torch
from line_task import LineTask, line_config
from processes import kill_myself

from cabruca.runtime import Runtime
from cabruca.train import checkpoint
from cabruca.train.loop import train
from cabruca.train.protocols import Record, Save, State, TrainResult


class FileReporter:
    """Resumes from the newest intact checkpoint of `folder`.

    Args:
        save_at: optimizer step after which the middle of an epoch is saved.
        kill_at: optimizer step after which the process dies of SIGKILL, before anything else is done.
    """

    def __init__(self, folder: Path, *, save_at: int | None = None, kill_at: int | None = None) -> None:
        self.folder, self.save_at, self.kill_at = folder, save_at, kill_at
        self.records: list[Record] = []

    def resume(self) -> State | None:
        newest = checkpoint.newest_intact(self.folder)
        return None if newest is None else checkpoint.read(newest)

    def heartbeat(self, record: Record) -> Literal["go", "save", "stop"]:
        if record.step == self.kill_at:
            kill_myself()
        return "save" if record.step == self.save_at else "go"

    def save(self, record: Record, save: Save) -> None:
        checkpoint.write(self.folder / "checkpoint_latest.pth", save.state(), metric=None)

    def report(self, record: Record, save: Save) -> None:
        self.records.append(record)
        self.save(record, save)

    def finish(self, result: TrainResult | None, error: BaseException | None) -> None:
        """Nothing to close."""


RESUME_CONFIG = line_config(
    training={
        "num_epochs": 10,
        "gradient_accumulation_steps": 2,
        "gradient_clip": 1.0,
        "early_stopping_patience": 20,
        "minimize_metric": False,  # the loss falls: no improvement, so patience and plateau have something to keep
    },
    scheduler={"type": "plateau", "patience": 1, "warmup_steps": 3},
    data={"batch_size": 2},
)
RESUME_TASK = LineTask(samples=13, dropout=0.3)  # 4 optimizer steps an epoch, the last of one picture


if __name__ == "__main__":  # a process of its own: folder, step to save at, step to die at
    torch.set_num_threads(1)
    mortal = FileReporter(Path(sys.argv[1]), save_at=int(sys.argv[2]), kill_at=int(sys.argv[3]))
    train(RESUME_CONFIG, RESUME_TASK, runtime=Runtime.single(), reporter=mortal)
