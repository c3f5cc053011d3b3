"""A line fit whose network may be compiled, and backends for it that need no C++ compiler."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from line_run import go
from line_task import Line, LineTask
from memory_reporter import MemoryReporter
from torch import Tensor, nn

SLOW_S = 0.002


class Slope(nn.Module):
    """The part that is compiled. `plain_s`: what a plain call costs more; `plain_calls`: True for each of training,
    False for each of validation."""

    def __init__(self, line: Line, plain_s: float) -> None:
        super().__init__()
        self.line, self.plain_s = line, plain_s
        self.plain_calls: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            time.sleep(self.plain_s)
            self.plain_calls.append(self.training)
        out: Tensor = self.line(x)
        return out


class Network(nn.Module):
    def __init__(self, line: Line, plain_s: float) -> None:
        super().__init__()
        self.backbone = Slope(line, plain_s)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.backbone(x)
        return out


@dataclass
class CompiledLine(LineTask):
    """A line fit whose network may be compiled."""

    plain_s: float = 0.0
    model: Any = None

    def build_model(self) -> nn.Module:
        self.model = Network(Line(self.dropout), self.plain_s)
        return self.model

    def parameter_part(self, name: str) -> str:
        return super().parameter_part(name.rsplit(".", maxsplit=1)[-1])

    def compilable(self, model: Any) -> list[nn.Module]:
        return [model.backbone]


def eager(graph: Any, _: Any) -> Any:
    """A backend that compiles nothing away: the same numbers, bit for bit."""
    return graph.forward


def slow(graph: Any, _: Any) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        time.sleep(SLOW_S)
        return graph.forward(*arguments)

    return run


def failing(*_: Any) -> Any:
    raise RuntimeError("no C++ compiler\nand much more")


def picky(graph: Any, inputs: Any) -> Any:
    """Has no code for a batch of a single point, which the trial's whole batches never are."""
    points = [x for x in inputs if isinstance(x, Tensor) and x.is_floating_point() and not x.requires_grad]
    if any(x.shape == (1,) for x in points):
        raise RuntimeError("no code for this shape")
    return graph.forward


def compiled_run(task: LineTask, reporter: MemoryReporter | None = None, **training: Any) -> Any:
    return go(task, reporter, data={"batch_size": 4}, training={"compile": True, "num_epochs": 2, **training})


def is_compiled(task: CompiledLine) -> bool:
    return task.model.backbone._compiled_call_impl is not None
