"""Optimizer steps that are left out because their gradients are not finite: counted, and an error after too many."""

from __future__ import annotations

import logging

from cabruca.errors import TrainingDiverged
from cabruca.runtime import Runtime
from cabruca.train.state import Place
from cabruca.train.step import Outcome

log = logging.getLogger("cabruca")


def watch_divergence(outcome: Outcome, place: Place, runtime: Runtime, *, limit: int) -> None:
    """Count skipped steps in a row, on every rank alike.

    Args:
        outcome: of the step that was taken last; `place` is after it.
        limit: `training.max_skipped_steps`.

    Raises:
        TrainingDiverged: `limit` of them in a row; names the pictures of the last, of all ranks.
    """
    place.skipped_in_a_row = place.skipped_in_a_row + 1 if outcome.skipped else 0
    if not outcome.skipped:
        return
    log.warning("optimizer step %d skipped: its gradients are not finite", place.step)
    if place.skipped_in_a_row >= limit:
        pictures = [name for names in runtime.gather(outcome.pictures) for name in names]
        raise TrainingDiverged(
            f"{limit} optimizer steps in a row had gradients that are not finite (training.max_skipped_steps; "
            f"epoch {place.epoch + 1}, step {place.step}, pictures of the last: "
            f"{', '.join(pictures) or 'not named by the task'}); lower optimizer.lr or look at these pictures"
        )
