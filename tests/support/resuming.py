"""A run that is stopped and goes on must end as one that never stopped: compared bitwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from line_task import LineTask
from memory_reporter import MemoryReporter

from cabruca.config.schema import Config
from cabruca.runtime import Runtime
from cabruca.train.loop import train
from cabruca.train.protocols import Record, State

NOT_OF_THE_RUN = ("elapsed_s", "epoch_sums", "versions")
"""Keys of a state that hold seconds, or facts of the machine."""


def same(a: Any, b: Any) -> bool:
    """Bitwise equality of plain containers with tensors inside."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def assert_same_end(ours: State, theirs: State) -> None:
    for key in theirs.keys() - set(NOT_OF_THE_RUN):
        assert same(ours[key], theirs[key]), key


def told(records: list[Record]) -> list[tuple[int, dict[str, float]]]:
    """Stage and numbers of records, without what is measured in seconds or megabytes."""
    own = ("time/", "memory/rss", "memory/cuda")
    return [(r.stage, {k: v for k, v in r.metrics.items() if not k.startswith(own)}) for r in records]


def assert_stops_change_nothing(
    config: Config, make: Callable[[], LineTask], *, steps: range, epochs: range
) -> MemoryReporter:
    """Stop after each of `steps`, and after each of `epochs`, and go on; returns the run that was not stopped."""

    def run(reporter: MemoryReporter) -> MemoryReporter:
        train(config, make(), runtime=Runtime.single(), reporter=reporter)
        return reporter

    whole = run(MemoryReporter())
    firsts = [MemoryReporter(stop_at_step=step) for step in steps]
    firsts += [MemoryReporter(stop_after_epoch=epoch) for epoch in epochs]
    for first in firsts:
        run(first)
        second = run(MemoryReporter(resume_from=first.state))
        assert_same_end(second.state, whole.state)
        assert told(first.records + second.records) == told(whole.records)
    return whole
