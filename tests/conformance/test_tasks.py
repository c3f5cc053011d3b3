"""Every Task passes the suite; and the suite notices a Task that breaks a rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from check_task import check_task
from line_task import LineTask
from torch import nn


def test_line_task() -> None:
    check_task(LineTask)


class GlobalSeed(LineTask):
    def build_model(self) -> nn.Module:
        torch.rand(1)
        return super().build_model()


class Unseeded(LineTask):
    def build_model(self) -> nn.Module:
        model = super().build_model()
        with torch.random.fork_rng():
            torch.seed()
            nn.init.normal_(model.slope)  # type: ignore[arg-type]
        return model


class NoPart(LineTask):
    def parameter_part(self, name: str) -> str:
        return "head"


class BatchMean(LineTask):
    def losses(self, model: nn.Module, batch: Any) -> Any:
        losses = super().losses(model, batch)
        return type(losses)(losses.total.mean().expand_as(losses.total), losses.parts)


class LeavesEval(LineTask):
    def validate(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        found = super().validate(model, *args, **kwargs)
        model.eval()
        return found


class DrawsInBatches(LineTask):
    def _points(self, *args: Any) -> Any:
        for points in super()._points(*args):
            yield type(points)(points.x + torch.rand(1), points.y, points.pictures)


class ForgetsAName(LineTask):
    def metric_names(self) -> frozenset[str]:
        return frozenset({"loss_line"})


@pytest.mark.parametrize(
    ("task", "rule"),
    [
        (ForgetsAName, "names all of them"),
        (GlobalSeed, "global generator untouched"),
        (Unseeded, "seed alone"),
        (NoPart, "belongs to a part"),
        (BatchMean, "batch neighbours"),
        (LeavesEval, "training mode"),
        (DrawsInBatches, "indices"),
    ],
)
def test_the_suite_notices(task: type[LineTask], rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_task(task)
