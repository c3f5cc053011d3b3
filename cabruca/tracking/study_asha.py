"""How many epochs the trials of a study run when asha stops them."""

from __future__ import annotations

import math
from bisect import insort

import numpy as np

from cabruca.config.study import Study


def expected_epochs(study: Study, draws: int = 50) -> float:
    """Epochs of all trials when asha stops them: the mean over random orders of arrival, one trial after another.

    The rule is that of Li et al. 2020 (arXiv 1810.05934, "A system for massively parallel hyperparameter tuning") as
    Ray stops by it: at a rung (grace_period x reduction_factor^k epochs), a trial that is below the
    1 - 1 / reduction_factor quantile of those that were there before it.
    """
    config, most = study.config, study.max_epochs
    rungs: list[float] = []
    while (rung := config.scheduler.grace_period * config.scheduler.reduction_factor ** len(rungs)) < most:
        rungs.append(rung)
    random = np.random.default_rng(0)
    repeats = max(1, min(draws, 20_000 // config.num_trials))
    total = sum(
        _epochs(random.permutation(config.num_trials).tolist(), rungs, most, config.scheduler.reduction_factor)
        for _ in range(repeats)
    )
    return total / repeats


def _epochs(ranks: list[int], rungs: list[float], most: int, factor: float) -> int:
    """Epochs that trials of these ranks, the higher the better, run in this order."""
    seen: list[list[int]] = [[] for _ in rungs]
    total = 0
    for rank in ranks:
        epochs = most
        for rung, there in zip(rungs, seen, strict=True):
            cut = _quantile(there, 1 - 1 / factor)
            insort(there, rank)
            if cut is not None and rank < cut:
                epochs = math.ceil(rung)
                break
        total += epochs
    return total


def _quantile(ordered: list[int], share: float) -> float | None:
    """Linear between neighbours, as numpy's; None of nothing."""
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
