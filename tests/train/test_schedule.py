"""Schedules against torch's own (the oracle), and what they do on resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as oracle

from cabruca.config.schema import SchedulerConfig
from cabruca.errors import ConfigError
from cabruca.train.schedule import SCHEDULERS, Schedule, Span

EPOCHS, STEPS = 12, 5
LRS = (1e-3, 2e-4)
SPAN = Span(base_lr=LRS[0], group_lrs=LRS, num_epochs=EPOCHS, total_steps=EPOCHS * STEPS, mode="min")


def torch_rates(make: Callable[[torch.optim.Optimizer], Any], every: int) -> list[list[float]]:
    """Rates before each optimizer step of a torch scheduler that is stepped every `every` optimizer steps."""
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in LRS])
    scheduler, rates = make(optimizer), []
    for step in range(EPOCHS * STEPS):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return rates


def our_rates(**config: Any) -> list[list[float]]:
    schedule = Schedule(SchedulerConfig(**config), SPAN)
    return [schedule.rates(step, step // STEPS) for step in range(EPOCHS * STEPS)]


def assert_same(ours: list[list[float]], theirs: list[list[float]]) -> None:
    as_given = [torch.tensor(rates, dtype=torch.float64) for rates in (ours, theirs)]
    torch.testing.assert_close(*as_given, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("t_max", [None, 12, 5, 40])
def test_cosine(t_max: int | None) -> None:
    theirs = torch_rates(lambda o: oracle.CosineAnnealingLR(o, t_max or EPOCHS, eta_min=1e-6), STEPS)
    assert_same(our_rates(type="cosine", T_max=t_max, eta_min=1e-6), theirs)


@pytest.mark.parametrize(("t_0", "t_mult"), [(3, 1), (2, 2), (1, 3), (20, 2)])
def test_cosine_warm_restarts(t_0: int, t_mult: int) -> None:
    theirs = torch_rates(lambda o: oracle.CosineAnnealingWarmRestarts(o, t_0, t_mult, eta_min=1e-6), STEPS)
    assert_same(our_rates(type="cosine_warm_restarts", T_0=t_0, T_mult=t_mult, eta_min=1e-6), theirs)


def test_exponential() -> None:
    assert_same(our_rates(type="exponential", gamma=0.9), torch_rates(lambda o: oracle.ExponentialLR(o, 0.9), STEPS))


@pytest.mark.parametrize("pct_start", [0.3, 0.05, 0.9])
@pytest.mark.parametrize("max_lr", [None, 5e-3])
def test_onecycle_moves_every_step_and_keeps_the_groups_proportion(max_lr: float | None, pct_start: float) -> None:
    peaks = [(max_lr or 10 * LRS[0]) * lr / LRS[0] for lr in LRS]
    total = EPOCHS * STEPS + 1  # torch refuses the step after the last rate; only the first total - 1 are compared
    theirs = torch_rates(lambda o: oracle.OneCycleLR(o, peaks, total_steps=total, pct_start=pct_start), 1)
    span = Span(LRS[0], LRS, EPOCHS, total)
    schedule = Schedule(SchedulerConfig(type="onecycle", max_lr=max_lr, pct_start=pct_start), span)
    assert_same([schedule.rates(step, step // STEPS) for step in range(EPOCHS * STEPS)], theirs)


@pytest.mark.parametrize("pct_start", [0.0, 1.0])
@pytest.mark.parametrize("total", [1, 2, 7])
def test_onecycle_is_finite_at_its_edges(pct_start: float, total: int) -> None:
    schedule = Schedule(SchedulerConfig(type="onecycle", pct_start=pct_start), Span(1e-3, LRS, 1, total))
    rates = [schedule.rates(step, 0)[0] for step in range(total + 3)]
    assert all(0 < rate <= 10 * LRS[0] for rate in rates)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau(mode: Any) -> None:
    metrics = [5.0, 4.0, 4.0, 4.1, 4.2, 3.0, 3.0, float("nan"), 3.5, 9.0, 9.0, 9.0]
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in LRS])
    theirs = oracle.ReduceLROnPlateau(optimizer, mode=mode, factor=0.3, patience=1, min_lr=1e-5)
    span = Span(LRS[0], LRS, EPOCHS, EPOCHS * STEPS, mode)
    ours = Schedule(SchedulerConfig(type="plateau", factor=0.3, patience=1, min_lr=1e-5), span)
    for epoch, metric in enumerate(metrics):
        assert ours.rates(epoch * STEPS, epoch) == [group["lr"] for group in optimizer.param_groups]
        theirs.step(metric)
        ours.observe(metric)
        again = Schedule(SchedulerConfig(type="plateau", factor=0.3, patience=1, min_lr=1e-5), span)
        again.load_state_dict(ours.state_dict())  # resumed at any place it goes on the same
        ours = again
    assert ours.rates(0, 0)[0] < LRS[0]


def test_plateau_on_resume_follows_a_new_base_rate() -> None:
    config = SchedulerConfig(type="plateau", factor=0.5, patience=0)
    before, after = Schedule(config, SPAN), Schedule(config, Span(1e-2, (1e-2, 2e-3), EPOCHS, 60, "min"))
    for metric in (1.0, 2.0):
        before.observe(metric)
    after.load_state_dict(before.state_dict())
    assert after.rates(0, 0) == pytest.approx([5e-3, 1e-3])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_warm_up_multiplies_every_schedule(name: str) -> None:
    plain, warm = our_rates(type=name), our_rates(type=name, warmup_steps=8)
    factors = torch_rates(lambda o: oracle.LinearLR(o, start_factor=1 / 8, total_iters=7), 1)
    expected = [
        [rate * factor / lr for rate, factor, lr in zip(*row, LRS, strict=True)]
        for row in zip(plain, factors, strict=True)
    ]
    assert_same(warm, expected)


def test_a_new_stage_starts_its_schedule_at_its_first_step() -> None:
    config = SchedulerConfig(type="onecycle", warmup_steps=4)
    stage = Schedule(config, SPAN, first_step=1000)
    assert [stage.rates(1000 + s, 0) for s in range(60)] == [Schedule(config, SPAN).rates(s, 0) for s in range(60)]
    resumed = Schedule(config, SPAN, first_step=1010)
    resumed.load_state_dict(stage.state_dict())
    assert resumed.rates(1010, 1) == stage.rates(1010, 1)


def test_an_unknown_schedule_lists_the_known() -> None:
    config = SchedulerConfig().model_copy(update={"type": "cosin"})
    with pytest.raises(ConfigError, match=r"'cosin' is not known; did you mean 'cosine'\?; use one of none, cosine"):
        Schedule(config, SPAN)
