"""A Task of two parameters: fit y = slope * x + offset. Milliseconds an epoch, everything else as in a real run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cabruca.config.load import config_from_dict
from cabruca.config.schema import Config
from cabruca.draws import draw_key, uniform
from cabruca.runtime import Runtime
from cabruca.train.protocols import Autocast, Losses, State, Validation


@dataclass(frozen=True)
class Points:
    """B points; `pictures` names them."""

    x: Tensor
    y: Tensor
    pictures: list[str]

    def to(self, device: torch.device | str, *, dtype: torch.dtype | None = None) -> Points:
        return Points(self.x.to(device, dtype), self.y.to(device, dtype), self.pictures)


class Line(nn.Module):
    """`slope` stands for a backbone, `offset` for a head, `spare` for a part that no data teaches."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.1]))
        self.offset = nn.Parameter(torch.tensor([0.2]))
        self.spare = nn.Parameter(torch.tensor([1.0]))
        self.dropout = nn.Dropout(dropout)
        self.met_large: Tensor
        self.register_buffer("met_large", torch.zeros(2, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:  # a fact that a network notes of what it has learnt from
            self.met_large |= torch.stack([x.max() > 0.85, x.max() > 9.0])
        # linear, not a product: autocast lowers its precision, so fp16 and bf16 are exercised
        return nn.functional.linear(self.dropout(x)[:, None], self.slope[:, None], self.offset)[:, 0]


@dataclass
class LineTask:
    """See the module. `bad` samples have no finite truth; `dropout` makes the global generator matter; `metrics`
    replaces what a validation finds: a function of the number of epochs completed."""

    samples: int = 13
    seed: int = 0
    dropout: float = 0.0
    bad: frozenset[int] = frozenset()
    metrics: Callable[[int], dict[str, float]] | None = None
    seen: list[tuple[int, list[list[int]]]] = field(default_factory=list)

    def build_model(self) -> nn.Module:
        return Line(self.dropout)

    def parameter_part(self, name: str) -> str:
        return {"slope": "backbone", "offset": "heads"}.get(name, "custom")

    def num_train_samples(self, epoch: int) -> int:
        return self.samples

    def train_batches(self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime) -> Iterable[Points]:
        self.seen.append((epoch, [list(batch) for batch in index_batches]))
        return self._points(epoch, index_batches)

    def _points(self, epoch: int, index_batches: Sequence[Sequence[int]]) -> Iterator[Points]:
        for indices in index_batches:
            x = torch.cat([uniform(draw_key(self.seed, epoch, i), 1) for i in indices])
            y = 3.0 * x - 1.0
            y[[i in self.bad for i in indices]] = torch.nan
            yield Points(x, y, [f"point_{i}" for i in indices])

    def losses(self, model: nn.Module, batch: Points) -> Losses:
        error: Tensor = (model(batch.x) - batch.y) ** 2
        return Losses(total=error, parts={"loss_line": error.detach()})

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        if self.metrics is not None:
            return Validation(self.metrics(epoch))
        was_training = model.training
        model.eval()
        weight = next(model.parameters())
        x = torch.linspace(0.0, 1.0, 8, dtype=weight.dtype, device=weight.device)
        with torch.no_grad(), autocast():
            error = ((model(x) - (3.0 * x - 1.0)) ** 2).mean()
        model.train(was_training)
        return Validation({"total_loss": float(error)})

    def state(self) -> State:
        return {"truth": [3.0, -1.0]}


def line_config(**sections: Mapping[str, Any]) -> Config:
    """A configuration of a line fit; each argument adds to, or replaces keys of, a section."""
    raw: dict[str, dict[str, Any]] = {
        "data": {"batch_size": 4},
        "optimizer": {"type": "adamw", "lr": 0.05},
        "scheduler": {"type": "none"},
        "training": {
            "num_epochs": 4,
            "monitor_metric": "val/total_loss",
            "minimize_metric": True,
            "early_stopping_patience": 0,
            "gradient_clip": 0.0,
        },
    }
    for section, values in sections.items():
        raw[section] = {**raw.get(section, {}), **values}
    return config_from_dict(raw)
