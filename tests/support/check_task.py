"""The conformance suite of the Task protocol: what the train function relies on, for every implementation."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
from memory_reporter import through_a_file
from torch import Tensor, nn

from cabruca.runtime import Runtime
from cabruca.train.protocols import Losses, Task, Validation, metric_names, prepare

PARTS = ("backbone", "heads", "custom")


def check_task(make: Callable[[], Task], *, runtime: Runtime | None = None) -> None:
    """Run every check on fresh tasks from `make`.

    Args:
        make: a new, equal Task on each call, with at least two training samples.
        runtime: default: alone on the CPU.

    Raises:
        AssertionError: a rule of the protocol is broken; the message names it.
    """
    runtime = runtime or Runtime.single()
    assert isinstance(make(), Task), "has every method of the protocol"
    _check_model(make)
    _check_batches(make, runtime)
    _check_losses(make, runtime)
    _check_validation(make, runtime)
    through_a_file(make().state())  # tensors and plain containers only, else torch refuses it


def _check_model(make: Callable[[], Task]) -> None:
    before = torch.get_rng_state()
    first = make().build_model()
    assert torch.equal(before, torch.get_rng_state()), "build_model leaves the global generator untouched"
    torch.rand(7)
    second = make().build_model()
    torch.set_rng_state(before)
    assert _same(first.state_dict(), second.state_dict()), "build_model depends on the seed alone"
    trainable = [name for name, p in first.named_parameters() if p.requires_grad]
    assert trainable, "something can be learnt"
    assert {make().parameter_part(name) for name in trainable} <= set(PARTS), "every parameter belongs to a part"


def _check_batches(make: Callable[[], Task], runtime: Runtime) -> None:
    count = make().num_train_samples(0)
    assert count >= 2, "the suite needs two samples"
    assert make().num_train_samples(0) == count
    cuts = [[0, 1], [1], [0]]
    batches = list(make().train_batches(0, cuts, runtime))
    assert len(batches) == len(cuts), "one batch for each list of indices"
    again = list(make().train_batches(0, [cuts[0]], runtime))
    assert _same(_contents(batches[0]), _contents(again[0])), "a batch depends on (seed, epoch, indices) alone"
    assert list(make().train_batches(0, [], runtime)) == [], "no indices, no batches"


def _check_losses(make: Callable[[], Task], runtime: Runtime) -> None:
    task = make()
    dtype = torch.float32 if runtime.device.type == "mps" else torch.float64  # exact where there are 64 bits
    model = task.build_model().to(runtime.device, dtype).train()
    whole, *singles = _losses(task, model, [[0, 1], [0], [1]], runtime)
    assert whole.total.shape == (2,), "total has a value per picture"
    assert all(part.shape == (2,) for part in whole.parts.values()), "every part has a value per picture"
    assert not any(part.requires_grad for part in whole.parts.values()), "parts are detached"
    alone = torch.cat([losses.total for losses in singles])
    tolerance = 2e-3 if dtype == torch.float32 else 1e-8
    apart = (whole.total - alone).abs() <= tolerance * (1 + alone.abs())
    assert bool(apart.all()), "a loss does not depend on batch neighbours"
    before = copy.deepcopy(model.state_dict())
    whole.total.sum().backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None for p in model.parameters()), "total is differentiable"
    assert _same(_numbers(before), _numbers(model.state_dict())), "losses change no weight and no statistic"


def _losses(task: Task, model: nn.Module, cuts: list[list[int]], runtime: Runtime) -> list[Losses]:
    batches = list(task.train_batches(0, cuts, runtime))
    dtype = next(model.parameters()).dtype
    moved = [b.to(runtime.device, dtype=dtype) if hasattr(b, "to") else b for b in batches]
    return [task.losses(model, batch) for batch in moved]


def _check_validation(make: Callable[[], Task], runtime: Runtime) -> None:
    task = make()
    prepare(task)
    model = task.build_model().to(runtime.device).train()
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = [task.validate(model, runtime, contextlib.nullcontext, epoch=1) for _ in range(2)]
    assert all(isinstance(validation, Validation) for validation in found)
    assert model.training, "validate leaves the model in training mode"
    assert _same(before, model.state_dict()), "validate changes no weight and no statistic"
    assert all(p.grad is None for p in model.parameters()), "validate leaves no gradient"
    assert torch.equal(generator, torch.get_rng_state()), "validate leaves the global generator untouched"
    first, second = ({k: repr(v) for k, v in validation.metrics.items()} for validation in found)
    assert first == second, "validate is repeatable"
    assert first, "validate measures something"
    named = metric_names(task)
    assert named is None or first.keys() <= named, "a task that names its metrics beforehand names all of them"
    assert all(type(value) is float for value in found[0].metrics.values()), "metrics are floats"
    assert not any(name.startswith("val/") for name in first), "the loop adds val/"


def _numbers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without bool buffers, in which a network may note what it has met."""
    return {name: value for name, value in state.items() if value.dtype != torch.bool}


def _contents(batch: Any) -> Any:
    return vars(batch) if hasattr(batch, "__dict__") else batch


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(itertools.starmap(_same, zip(a, b, strict=True)))
    return _same(vars(a), vars(b)) if hasattr(a, "__dict__") and not isinstance(a, type) else bool(a == b)
