"""What a trial's trackers are told of the study around it. Plain values: it travels to the trial's process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StudyPlace:
    """One trial of a study, or a repetition of one with another seed.

    Attributes:
        study: its name. study_id: what tells it from another study of the same name in the same place.
        trial: number. params: what the sampler chose, dotted key -> value.
        mlflow_parent_run_id: of the study's MLflow run; None where MLflow is off or did not answer: no trial tries it.
        mlflow_uri, mlflow_experiment_id: where that run is; "" where there is none.
        wandb_group: the group of the study's W&B runs. seed: of a repetition; None of the trial itself.
    """

    study: str
    study_id: str
    trial: int
    params: Mapping[str, Any]
    mlflow_parent_run_id: str | None = None
    mlflow_uri: str = ""
    mlflow_experiment_id: str = ""
    wandb_group: str = ""
    seed: int | None = None

    @property
    def wandb_id(self) -> str:
        """The id of the trial's W&B run."""
        return short_id(f"{self.study_id}/{self.trial}" + ("" if self.seed is None else f"/{self.seed}"))

    @property
    def kind(self) -> str:
        """`trial` or `repeat`."""
        return "trial" if self.seed is None else "repeat"


def short_id(text: str) -> str:
    """16 hexadecimal digits of `text`'s SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
