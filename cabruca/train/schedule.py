"""Learning rates as functions of where the run is, so that resuming needs no replay.

Formulas are those of `torch.optim.lr_scheduler` (tests compare with it). Cosine, warm restarts and exponential move
once an epoch, one-cycle once an optimizer step over all steps of the run, plateau after each validation. Linear
warm-up, in optimizer steps, multiplies any of them. Every parameter group follows from its own base rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cabruca.config.schema import SchedulerConfig
from cabruca.errors import ConfigError, did_you_mean

ONECYCLE_START = 25.0
"""One-cycle begins at peak / this (torch's `div_factor`) ..."""
ONECYCLE_END = 1e4
"""... and ends at its beginning / this (torch's `final_div_factor`)."""


@dataclass(frozen=True)
class Span:
    """What a schedule must know of the run.

    Attributes:
        base_lr: `optimizer.lr`, that groups are measured by.
        group_lrs: the base rate of each parameter group.
        num_epochs, total_steps: length of the stage (without stages: of the run); total_steps in optimizer steps.
        mode: whether the monitored metric is to fall (`min`) or to rise (`max`).
        group_names: of the parameter groups, by which a plateau's rates are kept.
    """

    base_lr: float
    group_lrs: Sequence[float]
    num_epochs: int
    total_steps: int
    mode: Literal["min", "max"] = "max"
    group_names: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """Of the groups, in order; their numbers where none were given."""
        return list(self.group_names) or [str(i) for i in range(len(self.group_lrs))]


class Curve:
    """The rate of each group at a place of the run, without warm-up. This one is constant."""

    def __init__(self, config: SchedulerConfig, span: Span) -> None:
        self.config = config
        self.span = span

    def rate(self, group: int, step: int, epoch: int) -> float:
        """Learning rate of group number `group`, `step` optimizer steps and `epoch` whole epochs into the run."""
        return self.span.group_lrs[group]

    def observe(self, metric: float) -> None:
        """A validation found `metric`."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""


class Cosine(Curve):
    """Down to `eta_min` in `T_max` epochs, and up again after them (Loshchilov, Hutter 2017, without restarts)."""

    def rate(self, group: int, step: int, epoch: int) -> float:
        period = self.config.T_max or self.span.num_epochs
        return _cosine(self.span.group_lrs[group], self.config.eta_min, epoch / period)


class CosineWarmRestarts(Curve):
    """Cosine cycles of T_0, T_0 * T_mult, T_0 * T_mult^2 ... epochs (SGDR; Loshchilov, Hutter 2017)."""

    def rate(self, group: int, step: int, epoch: int) -> float:
        length = self.config.T_0
        while epoch >= length:
            epoch -= length
            length *= self.config.T_mult
        return _cosine(self.span.group_lrs[group], self.config.eta_min, epoch / length)


class Exponential(Curve):
    """Times `gamma` every epoch."""

    def rate(self, group: int, step: int, epoch: int) -> float:
        return self.span.group_lrs[group] * self.config.gamma**epoch


class OneCycle(Curve):
    """Up to `max_lr` in `pct_start` of the steps, then down to almost nothing (Smith, Topin 2018), momentum untouched.

    `max_lr` is the peak of a group with the base rate `optimizer.lr`; other groups keep their proportion to it.
    """

    def rate(self, group: int, step: int, epoch: int) -> float:
        peak = (self.config.max_lr or 10.0 * self.span.base_lr) * self.span.group_lrs[group] / self.span.base_lr
        start = peak / ONECYCLE_START
        turn = self.config.pct_start * self.span.total_steps - 1.0
        last = self.span.total_steps - 1.0
        if step <= turn:
            return _cosine(start, peak, step / turn) if turn > 0 else peak
        return _cosine(peak, start / ONECYCLE_END, min(1.0, (step - turn) / (last - turn)) if last > turn else 1.0)


class Plateau(Curve):
    """Times `factor` after more than `patience` validations without improvement; torch's own, on stand-in groups."""

    def __init__(self, config: SchedulerConfig, span: Span) -> None:
        super().__init__(config, span)
        groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in span.group_lrs]
        self._rates = torch.optim.SGD(groups)
        self._plateau = ReduceLROnPlateau(
            self._rates, mode=span.mode, factor=config.factor, patience=config.patience, min_lr=config.min_lr
        )

    def rate(self, group: int, step: int, epoch: int) -> float:
        return float(self._rates.param_groups[group]["lr"])

    def observe(self, metric: float) -> None:
        self._plateau.step(metric)

    def state_dict(self) -> dict[str, Any]:
        # rates with the base rates they come from, so that another base rate on resume takes effect
        rates = [self.rate(i, 0, 0) for i in range(len(self.span.group_lrs))]
        return {
            "rates": dict(zip(self.span.names, rates, strict=True)),
            "base": dict(zip(self.span.names, self.span.group_lrs, strict=True)),
            "best": self._plateau.best,
            "bad": self._plateau.num_bad_epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """A group that the state does not name keeps its base rate."""
        self._plateau.best, self._plateau.num_bad_epochs = state["best"], state["bad"]
        rates, bases = (self._by_name(state[key]) for key in ("rates", "base"))
        for name, group, base in zip(self.span.names, self._rates.param_groups, self.span.group_lrs, strict=True):
            if name in rates:
                group["lr"] = rates[name] if base == bases[name] else base * rates[name] / bases[name]

    def _by_name(self, values: dict[str, float] | list[float]) -> dict[str, float]:
        """Early checkpoints hold a list in the groups' order."""
        return values if isinstance(values, dict) else dict(zip(self.span.names, values, strict=False))


SCHEDULERS: dict[str, Callable[[SchedulerConfig, Span], Curve]] = {
    "none": Curve,
    "cosine": Cosine,
    "cosine_warm_restarts": CosineWarmRestarts,
    "exponential": Exponential,
    "onecycle": OneCycle,
    "plateau": Plateau,
}


class Schedule:
    """The rates of a run: warm-up times the configured curve.

    Args:
        config: the scheduler section.
        span: length and groups of the run.
        first_step: the run's counter of optimizer steps where this stage began.

    Raises:
        ConfigError: `config.type` is not in SCHEDULERS.
    """

    def __init__(self, config: SchedulerConfig, span: Span, first_step: int = 0) -> None:
        if config.type not in SCHEDULERS:
            raise ConfigError(
                f"scheduler.type '{config.type}' is not known{did_you_mean(config.type, SCHEDULERS)}; "
                f"use one of {', '.join(SCHEDULERS)}"
            )
        self.span = span
        self.first_step = first_step
        self._warmup = config.warmup_steps
        self._curve = SCHEDULERS[config.type](config, span)
        self._type = config.type

    def rates(self, step: int, epoch: int) -> list[float]:
        """Rate of each group for the next optimizer step, after `step` steps ever and `epoch` epochs of this stage."""
        step -= self.first_step
        warm = min(1.0, (step + 1) / self._warmup) if self._warmup else 1.0
        return [warm * self._curve.rate(i, step, epoch) for i in range(len(self.span.group_lrs))]

    def observe(self, metric: float) -> None:
        """Tell the schedule what a validation found."""
        self._curve.observe(metric)

    def state_dict(self) -> dict[str, Any]:
        return {"type": self._type, "first_step": self.first_step, **self._curve.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on; where the configuration now names another type, that type starts from where the run is."""
        self.first_step = state.get("first_step", 0)
        if state.get("type") == self._type:
            self._curve.load_state_dict(state)


def _cosine(first: float, last: float, share: float) -> float:
    """Half a cosine wave from `first` (share 0) to `last` (share 1)."""
    return last + (first - last) * (1.0 + math.cos(math.pi * share)) / 2.0
