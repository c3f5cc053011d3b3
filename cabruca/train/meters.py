"""Running sums of an epoch: of losses, pictures and seconds, kept so that a resumed epoch's record is complete."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from cabruca.train.protocols import Losses, Metrics


@dataclass
class Sums:
    """Sums over optimizer steps that were taken (a skipped step adds to `skipped_steps` and to time alone).

    Attributes:
        losses: name -> (sum over pictures, number of pictures it is known for).
        pictures: pictures learnt from; of this rank until `merge`.
        steps, grad_norm: steps taken and the sum of their gradient norms (before clipping); the same on all ranks.
        skipped_steps: steps left out because gradients were not finite; the same on all ranks.
        train_s, wait_s: seconds of the training pass, and of them waiting for data.
    """

    losses: dict[str, tuple[float, int]] = field(default_factory=dict)
    pictures: int = 0
    steps: int = 0
    grad_norm: float = 0.0
    skipped_steps: int = 0
    train_s: float = 0.0
    wait_s: float = 0.0

    def add_losses(self, losses: Losses) -> None:
        """Add one micro-batch: `total_loss` and each part; a part that is NaN for a picture is unknown for it."""
        names = ["total_loss", *losses.parts]
        values = [losses.total.detach(), *losses.parts.values()]
        for name, (total, known) in zip(names, _known_sums(values), strict=True):
            before = self.losses.get(name, (0.0, 0))
            self.losses[name] = (before[0] + total, before[1] + known)
        self.pictures += int(losses.total.shape[0])

    def add(self, other: Sums) -> None:
        """Add another step's (or span's) sums to these."""
        self._add_own(other)
        self.steps += other.steps
        self.grad_norm += other.grad_norm
        self.skipped_steps += other.skipped_steps
        self.train_s += other.train_s
        self.wait_s += other.wait_s

    def _add_own(self, other: Sums) -> None:
        for name, (total, known) in other.losses.items():
            before = self.losses.get(name, (0.0, 0))
            self.losses[name] = (before[0] + total, before[1] + known)
        self.pictures += other.pictures

    @classmethod
    def merge(cls, ranks: Iterable[Sums]) -> Sums:
        """Of all ranks: losses and pictures add up; what is the same on all ranks is the first rank's."""
        first, *others = ranks
        out = cls(**{**asdict(first), "losses": dict(first.losses)})
        for other in others:
            out._add_own(other)
        return out

    def metrics(self) -> Metrics:
        """`train/...` and `time/...` of a record; NaN where no step was taken."""
        means = {f"train/{name}": _ratio(total, known) for name, (total, known) in self.losses.items()}
        return {
            **means,
            "train/grad_norm": _ratio(self.grad_norm, self.steps),
            "train/skipped_steps": float(self.skipped_steps),
            "time/data_wait_share": _ratio(self.wait_s, self.train_s),
            "time/images_per_s": _ratio(self.pictures, self.train_s),
        }

    def to_state(self) -> dict[str, Any]:
        return {**asdict(self), "losses": {name: list(pair) for name, pair in self.losses.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Sums:
        losses = {name: (float(total), int(known)) for name, (total, known) in state.get("losses", {}).items()}
        return cls(**{**state, "losses": losses})


def _known_sums(values: list[Tensor]) -> list[tuple[float, int]]:
    """Sum and number of the known values of each tensor, in float64 where there is one, in one transfer."""
    device = values[0].device
    wide = torch.float32 if device.type == "mps" else torch.float64
    rows = [v.detach().to(wide) for v in values]
    sums = torch.stack([torch.stack([torch.nansum(r), (~torch.isnan(r)).sum().to(wide)]) for r in rows])
    return [(float(total), int(known)) for total, known in sums.tolist()]


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else math.nan
