"""How a run ended, as a TrainResult with one line for people."""

from __future__ import annotations

from cabruca.config.schema import TrainingConfig
from cabruca.train.protocols import Metrics, StopTraining, TrainResult
from cabruca.train.state import Place
from cabruca.words import counted


def ending(place: Place, settings: TrainingConfig, metrics: Metrics, stop: StopTraining | None) -> TrainResult:
    """The result of a run that is at `place`: stopped by `stop`, out of patience, or through all epochs."""
    return TrainResult(
        state="finished" if stop is None else stop.state,
        epochs=place.epoch,
        step=place.step,
        best=place.best,
        best_epoch=place.best_epoch,
        metrics=metrics,
        message=_message(place, settings, stop),
    )


def _message(place: Place, settings: TrainingConfig, stop: StopTraining | None) -> str:
    best = ""
    if place.best is not None:
        best = f"; best {settings.monitor_metric} {place.best:.4g} after epoch {place.best_epoch}"
    if stop is not None:
        return f"{stop.reason} (epoch {place.epoch} of {settings.num_epochs} done, step {place.step}){best}"
    if place.epoch < settings.num_epochs:
        used = place.validations_without_improvement
        return f"stopped early after epoch {place.epoch}: {counted(used, 'validation')} without improvement{best}"
    return f"finished {counted(place.epoch, 'epoch')}, {counted(place.step, 'step')}{best}"
