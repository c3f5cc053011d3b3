"""What people are told where a run turns: a stage begins, a part of the network begins to learn."""

from __future__ import annotations

from cabruca.train.learner import Learner
from cabruca.train.state import Place


def opening(learner: Learner, place: Place) -> list[str]:
    """Before the first step of this process: the stage it is in, and what is still frozen."""
    lines = [_stage(learner)] if len(learner.stages) > 1 else []
    frozen = learner.thaw.frozen(place.epoch)
    if frozen:
        lines.append(f"frozen at first: {', '.join(frozen)}")
    late = [entry for entry in learner.config.training.unfreeze if entry.epoch >= learner.config.training.num_epochs]
    lines += [
        f"training.unfreeze: '{entry.part}' begins to learn after epoch {entry.epoch}, and the run has "
        f"{learner.config.training.num_epochs}: it stays frozen"
        for entry in late
    ]
    return lines


def turning(learner: Learner, place: Place, *, new_stage: bool) -> list[str]:
    """After `place.epoch` epochs: the stage that begins, the parts that thaw; nothing after the last epoch."""
    if place.epoch >= learner.config.training.num_epochs:
        return []
    lines = [_stage(learner)] if new_stage else []
    due = learner.thaw.due(place.epoch)
    if due:
        lines.append(f"epoch {place.epoch + 1}: {', '.join(due)} begins to learn")
    return lines


def _stage(learner: Learner) -> str:
    info = learner.describe_stages()[learner.stage.index]
    return f"stage {learner.stage.index + 1} of {len(learner.stages)}: {info.describe()}"
