"""A Reporter that keeps everything in memory and can be told to stop or save at a step."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Literal

import torch

from cabruca.train.protocols import Record, Save, State, StopTraining, TrainResult


@dataclass
class MemoryReporter:
    """`saves` holds (record, state, best, numbered), each state as it would come back from a file."""

    resume_from: State | None = None
    stop_at_step: int | None = None
    save_at_step: int | None = None
    stop_after_epoch: int | None = None
    records: list[Record] = field(default_factory=list)
    steps: list[Record] = field(default_factory=list)
    saves: list[tuple[Record, State, bool, bool]] = field(default_factory=list)
    finished: list[tuple[TrainResult | None, BaseException | None]] = field(default_factory=list)

    def resume(self) -> State | None:
        return self.resume_from

    def heartbeat(self, record: Record) -> Literal["go", "save", "stop"]:
        self.steps.append(record)
        if record.step == self.stop_at_step:
            return "stop"
        return "save" if record.step == self.save_at_step else "go"

    def save(self, record: Record, save: Save) -> None:
        self.saves.append((record, through_a_file(save.state()), save.best, save.numbered))

    def report(self, record: Record, save: Save) -> None:
        self.records.append(record)
        self.save(record, save)
        if record.epoch == self.stop_after_epoch:
            raise StopTraining("the study stops this trial")

    def finish(self, result: TrainResult | None, error: BaseException | None) -> None:
        self.finished.append((result, error))

    @property
    def state(self) -> State:
        """The last state that was saved."""
        return self.saves[-1][1]


def through_a_file(state: State) -> State:
    """What `weights_only=True` gives back of a state."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: State = torch.load(buffer, weights_only=True)
    return loaded
