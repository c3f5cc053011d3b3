"""TensorBoard: scalars, learning rates, pictures, the model card and hyperparameters under `<run>/tensorboard`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from cabruca.config.schema import Config
from cabruca.tracking.files import to_json
from cabruca.tracking.guarded import interrupted
from cabruca.tracking.pictures import plots_of
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.scalars import best_scalar, finite, flatten, step_scalars
from cabruca.tracking.study_place import StudyPlace
from cabruca.train.protocols import BaseCallback, Record, RunInfo, TrainResult

HPARAM_SECTIONS = ("model", "data", "optimizer", "scheduler", "loss", "training")
"""Of the configuration: what can change what is learnt."""


class TensorBoardTracker(BaseCallback):
    """Every record at its optimizer step; when the run is over, the pictures of `plots/` and the model card.

    A resumed run writes one more event file into the same folder, with `purge_step`, so that TensorBoard hides
    what an undisturbed run would not have. The HPARAMS tab gets one row a run, with the configuration and `best/...`,
    the best value of the monitored metric; it is written when the run is over, not when it is interrupted, because
    TensorBoard keeps the first such row of a run for ever. The row of a trial has what its sampler chose, and is there
    for a failed trial too: `tensorboard --logdir <study>/trials` lists them all.
    """

    def __init__(self, run_dir: RunDir, config: Config, within: StudyPlace | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside tensorboard are not ours to mend
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams
        self._make = SummaryWriter
        self._summaries: Any = hparams
        self._monitor = config.training.monitor_metric
        self._within = within
        self._config: Mapping[str, Any] = {}
        self._run_dir, self._step = run_dir, 0
        self._folder = str(run_dir.tensorboard)
        self._writer: SummaryWriter | None = None

    def on_start(self, info: RunInfo) -> None:
        self._config = info.config
        purge = info.resumed_step + 1 if info.resumed_step else None
        self._writer = self._make(self._folder, purge_step=purge, flush_secs=30)

    def on_step(self, record: Record) -> None:
        self._scalars(step_scalars(record), record.step)

    def on_validation(self, record: Record) -> None:
        assert self._writer is not None
        for picture in record.pictures:
            self._writer.add_image(f"val/{picture.name}", picture.rgb, record.step, dataformats="HWC")

    def on_epoch(self, record: Record) -> None:
        self._scalars(finite(record), record.step)
        self._step = record.step
        assert self._writer is not None
        self._writer.flush()

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if self._writer is None:
            return
        if (result is not None or self._within is not None) and not interrupted(result, error):
            self._hyperparameters(result)
        if not interrupted(result, error):
            self._plots()
        self._writer.close()

    def _plots(self) -> None:
        import numpy as np
        from PIL import Image

        assert self._writer is not None
        for name, file in plots_of(self._run_dir).items():
            with Image.open(file) as picture:
                self._writer.add_image(name, np.asarray(picture.convert("RGB")), self._step, dataformats="HWC")
        if self._run_dir.model_card.is_file():
            self._writer.add_text("model card", self._run_dir.model_card.read_text(encoding="utf-8"), self._step)

    def _hyperparameters(self, result: TrainResult | None) -> None:
        # not `add_hparams`: it would make a second run, in a folder named by the second
        writer: Any = self._writer
        best, step = (best_scalar(result, self._monitor), result.step) if result else ({}, None)
        self._scalars(best, step or 0)
        given = as_hyperparameters(self._within.params) if self._within else hyperparameters(self._config)
        for summary in self._summaries(given, best):
            writer.file_writer.add_summary(summary, step)

    def _scalars(self, scalars: Mapping[str, float], step: int) -> None:
        assert self._writer is not None
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)


def hyperparameters(config: Mapping[str, Any]) -> dict[str, float | str | bool]:
    """Dotted key -> value, as TensorBoard can hold it: lists as text, what is not set left out."""
    return as_hyperparameters(flatten({name: config[name] for name in HPARAM_SECTIONS if name in config}))


def as_hyperparameters(values: Mapping[str, Any]) -> dict[str, float | str | bool]:
    """`values`, as `hyperparameters` gives them."""
    known = {name: value for name, value in values.items() if value is not None}
    return {n: v if isinstance(v, bool | int | float | str) else to_json(v) for n, v in known.items()}
