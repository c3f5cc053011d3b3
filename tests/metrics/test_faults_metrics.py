"""Faults 7, 8 and 9 of the predecessor: our metrics pass, the fault put back turns each check red."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from drawn import SPEC, drawn_sample, perfect

from cabruca.config.schema import ValidationConfig
from cabruca.metrics.counts import count_accuracy
from cabruca.metrics.evaluator import Evaluator
from cabruca.runtime import Runtime
from cabruca.structures import Batch, CroppedMasks, Prediction, collate


class FirstBatchOnly(Evaluator):
    """Fault 7: the first batch is compared, all others are ignored."""

    def add(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        if not self.records:
            super().add(batch, predictions)


def every_batch_counts(kind: type[Evaluator]) -> None:
    """Picture 1 is found perfectly, pictures 2 and 3 not at all: a third of the truth is found."""
    e = kind(SPEC.instance_classes, SPEC.semantic_classes, ValidationConfig(), min_visible_share=0.3)
    nothing = Prediction(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), CroppedMasks.empty(), None, None, None
    )
    for i in range(3):
        sample = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 1)], index=i)
        e.add(collate([sample]), [perfect(sample) if i == 0 else nothing])
    metrics = e.compute(Runtime.single(), mask_labels=frozenset({1}))
    assert metrics["total_count_true"] == 6
    assert metrics["total_count_accuracy"] == pytest.approx(2 / 6)
    assert metrics["bbox_mAP_50"] == pytest.approx(34 / 101, abs=1e-9)  # recall levels 0.00 .. 0.33
    assert metrics["cacao_recall"] == pytest.approx(2 / 6)


def test_fault_7_metrics_read_every_batch() -> None:
    every_batch_counts(Evaluator)


def test_fault_7_put_back_is_red() -> None:
    with pytest.raises(AssertionError):
        every_batch_counts(FirstBatchOnly)


def predecessors_count_accuracy(found: int, true: int) -> float:
    """Fault 9: divides by the truth, without a floor."""
    return float(1.0 - np.abs(found - true) / true) if true else float(1 // true)


def count_accuracy_is_sane(accuracy: Callable[[int, int], float]) -> None:
    try:
        values = [accuracy(0, 0), accuracy(3, 0), accuracy(50, 2)]
    except ZeroDivisionError:
        raise AssertionError("an empty tile raises") from None
    assert values == [1.0, 0.0, 0.0]


def large_errors_are_zero(accuracy: Callable[[int, int], float]) -> None:
    assert accuracy(50, 2) == 0.0


def test_fault_9_counts_are_defined_on_an_empty_tile_and_never_negative() -> None:
    count_accuracy_is_sane(count_accuracy)
    large_errors_are_zero(count_accuracy)


@pytest.mark.parametrize("check", [count_accuracy_is_sane, large_errors_are_zero])
def test_fault_9_put_back_is_red(check: Callable[[Callable[[int, int], float]], None]) -> None:
    with pytest.raises(AssertionError):
        check(predecessors_count_accuracy)


def counts_use_a_threshold(threshold: float) -> None:
    e = Evaluator(
        SPEC.instance_classes, SPEC.semantic_classes, ValidationConfig(score_threshold=threshold), min_visible_share=0.3
    )
    sample = drawn_sample([(40, 40, 14, 1)])
    e.add(collate([sample]), [perfect(sample, score=0.1)])
    assert e.compute(Runtime.single())["cacao_count"] == 0


def test_fault_9_doubtful_crowns_are_not_counted() -> None:
    counts_use_a_threshold(0.5)


def test_fault_9_without_threshold_is_red() -> None:
    with pytest.raises(AssertionError):
        counts_use_a_threshold(0.0)
