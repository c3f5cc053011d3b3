"""In this process or on many workers? The one place that decides; Ray is imported only where it is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cabruca.config.schema import Config
from cabruca.train.protocols import TrainResult

if TYPE_CHECKING:
    from cabruca.predict.run import Summary


def needs_workers(config: Config) -> bool:
    """Whether a run is one of Ray's: more than one worker, or a cluster to run on."""
    settings = config.distributed
    return settings.num_workers != 1 or settings.address is not None or bool(os.environ.get("RAY_ADDRESS"))


def train(config: Config, *, dry_run: bool = False, **options: Any) -> TrainResult:
    """Train where `distributed.*` says. Arguments, result and errors are those of `run.run_training`.

    A dry run stays in this process: two steps and one validation need no workers.
    """
    if dry_run or not needs_workers(config):
        from cabruca.run import run_training

        return run_training(config, dry_run=dry_run, **options)
    from cabruca.distributed.ray_train import train_on_workers

    return train_on_workers(config, **options)


def evaluate(checkpoint: str | Path, images: str | Path, annotations: str | Path, **options: Any) -> Mapping[str, Any]:
    """Evaluate here, or on workers where `workers` or `address` ask for them.

    Arguments as `evaluation.evaluate`, and `workers` (a number or `auto`), `address` and `dashboard`.
    """
    workers, address = options.pop("workers", None), options.pop("address", None)
    dashboard = options.pop("dashboard", True)
    distributed: dict[str, Any] = {"num_workers": workers or 1, "address": address, "dashboard": dashboard}
    from cabruca.config.load import config_from_dict

    asked = config_from_dict({"distributed": distributed}).distributed
    if not needs_workers(Config(distributed=asked)):
        from cabruca.evaluation import evaluate as measure

        return measure(checkpoint, images, annotations, **options)
    from cabruca.distributed.ray_evaluate import evaluate_on_workers

    return evaluate_on_workers(checkpoint, images, annotations, distributed=asked, **options)


def predict(
    checkpoint: str | Path, images: str | Path | Sequence[str | Path], out: str | Path, **options: Any
) -> Summary:
    """Predict here, or on workers where `workers` or `address` ask for them.

    Arguments as `predict.begin.predict`, and `workers` (a number or `auto`), `address` and `dashboard`.
    """
    workers, address = options.pop("workers", None), options.pop("address", None)
    dashboard = options.pop("dashboard", True)
    distributed: dict[str, Any] = {"num_workers": workers or 1, "address": address, "dashboard": dashboard}
    from cabruca.config.load import config_from_dict

    asked = config_from_dict({"distributed": distributed}).distributed
    if not needs_workers(Config(distributed=asked)):
        from cabruca.predict.begin import predict as begin

        return begin(checkpoint, images, out, **options)
    from cabruca.distributed.ray_predict import predict_on_workers

    return predict_on_workers(checkpoint, images, out, distributed=asked, **options)


def unused_gpus(config: Config, count: Callable[[], int] | None = None) -> int:
    """GPUs that are visible where a run in this process would use one of them; 0 where there is nothing to say.

    Args:
        count: of the visible GPUs; default: torch's.
    """
    if config.device not in ("auto", "cuda") or needs_workers(config):
        return 0
    if count is None:
        import torch

        count = torch.cuda.device_count
    found = count()
    return found if found > 1 else 0
