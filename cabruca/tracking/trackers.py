"""Which trackers a run has: a registry, and a list that may be empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from cabruca.config.schema import Config
from cabruca.tracking.carding import ModelCard
from cabruca.tracking.charting import Charts
from cabruca.tracking.guarded import Guarded
from cabruca.tracking.mlflow import MLflowTracker
from cabruca.tracking.pictures import PictureWriter
from cabruca.tracking.plots import ResultsPlot
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_place import StudyPlace
from cabruca.tracking.tensorboard import TensorBoardTracker
from cabruca.tracking.wandb import WandbTracker
from cabruca.train.protocols import Callback

TRACKERS: dict[str, Callable[..., Any]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MLflowTracker,
    "wandb": WandbTracker,
}
"""Name, which is also the switch `tracking.<name>`, -> what makes the callback of a run's folder and configuration and,
for a trial, `within`. Third parties import inside it."""


PATIENCE_S = {"mlflow": 600.0}
"""How long the end of a run waits for what sends large files; of the others, seconds as `Guarded` says."""


def trackers_of(
    run_dir: RunDir, config: Config, *, within: StudyPlace | None = None, task: Mapping[str, Any] | None = None
) -> list[Callback]:
    """The run's writers of pictures and trackers, each guarded. Trackers come last: at the end they send the files.

    Args:
        within: of a trial, its place in its study; without a study's MLflow run the trial has none either.
        task: `state()` of the run's task, for the model card.
    """
    chosen: dict[str, Callable[..., Any]] = {}
    if config.validation.save_predictions:
        chosen["pictures"] = PictureWriter
    chosen |= {"results plot": ResultsPlot, "charts": Charts, "model card": partial(ModelCard, task=task or {})}
    trackers = {name: make for name, make in TRACKERS.items() if getattr(config.tracking, name)}
    if within is not None:
        trackers = {name: partial(make, within=within) for name, make in trackers.items()}
        if within.mlflow_parent_run_id is None:
            trackers.pop("mlflow", None)
    chosen |= trackers
    return [_guarded(name, make, run_dir, config) for name, make in chosen.items()]


def _guarded(name: str, make: Callable[..., Any], run_dir: RunDir, config: Config) -> Guarded:
    return Guarded(name, lambda: make(run_dir, config), patience_s=PATIENCE_S.get(name, 60.0))
