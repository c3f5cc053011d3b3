"""Which trackers a run has: a registry, and a list that may be empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cabruca.config.schema import Config
from cabruca.tracking.guarded import Guarded
from cabruca.tracking.mlflow import MLflowTracker
from cabruca.tracking.pictures import PictureWriter
from cabruca.tracking.plots import ResultsPlot
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.tensorboard import TensorBoardTracker
from cabruca.tracking.wandb import WandbTracker
from cabruca.train.protocols import Callback

TRACKERS: dict[str, Callable[[RunDir, Config], Any]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MLflowTracker,
    "wandb": WandbTracker,
}
"""Name, which is also the switch `tracking.<name>`, -> what makes the callback. Third parties import inside it."""


def trackers_of(run_dir: RunDir, config: Config) -> list[Callback]:
    """The run's trackers and writers of pictures, each guarded; results.png last, when all records are there."""
    chosen: dict[str, Callable[[RunDir, Config], Any]] = {
        name: make for name, make in TRACKERS.items() if getattr(config.tracking, name)
    }
    if config.validation.save_predictions:
        chosen["pictures"] = PictureWriter
    chosen["results plot"] = ResultsPlot
    return [_guarded(name, make, run_dir, config) for name, make in chosen.items()]


def _guarded(name: str, make: Callable[[RunDir, Config], Any], run_dir: RunDir, config: Config) -> Guarded:
    return Guarded(name, lambda: make(run_dir, config))
