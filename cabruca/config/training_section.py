"""The section `training`: how long, how exactly, in which stages, and what happens when memory runs out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cabruca.config.base import BelowOne, Section, TileSize

Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]


class Stage(Section):
    tile_size: TileSize  # side of this stage's training windows, px
    epochs: PositiveInt  # length of the stage
    lr: PositiveFloat | None = None  # None: optimizer.lr; other groups keep their proportion to it


class Unfreeze(Section):
    epoch: NonNegativeInt  # epochs completed before the part begins to learn
    part: Annotated[
        str, Field(min_length=1)
    ]  # backbone, heads, custom, or a glob over parameter names such as "backbone.body.layer4*"


class TrainingConfig(Section):
    num_epochs: PositiveInt = 100  # epochs of the run; with stages it is their sum
    gradient_accumulation_steps: PositiveInt = 1  # effective batch = batch_size x this
    gradient_clip: NonNegativeFloat = 1.0  # largest gradient norm; 0: no clipping
    mixed_precision: bool = False  # true: autocast in `precision`
    precision: Precision = "auto"  # auto: fp32, or what suits the device when mixed_precision is on
    monitor_metric: str = "val/mAP_50"  # decides best checkpoint, early stopping, plateau
    minimize_metric: bool = False  # true: smaller is better
    save_frequency: NonNegativeInt = 10  # epochs between numbered checkpoints; 0: none
    checkpoint_minutes: NonNegativeFloat = 10.0  # the middle of an epoch is saved this often; 0: never
    log_interval: PositiveInt = 10  # optimizer steps between records
    early_stopping_patience: NonNegativeInt = 20  # validations without improvement; 0: off
    empty_cache_freq: NonNegativeInt = 0  # optimizer steps between emptying the device's cache; 0: never
    max_skipped_steps: PositiveInt = 20  # non-finite optimizer steps in a row before an error
    channels_last: bool = True  # memory layout of pictures and convolutions
    seed: NonNegativeInt = 0  # of every random draw
    profile: bool = False  # true: write what each operator costs into profile/
    profile_batches: tuple[NonNegativeInt, NonNegativeInt] = (10, 20)  # first and last batch that is profiled
    stages: tuple[Stage, ...] = ()  # progressive resolution in one run; gives tile size, epochs and rate
    unfreeze: tuple[Unfreeze, ...] = ()  # parts that are frozen at first, and the epoch they begin to learn in
    ema_decay: BelowOne = 0.0  # moving average of the weights, which is validated and kept; 0: none
    on_oom: Literal["fail", "shrink"] = "fail"  # shrink: halve the micro-batch, same effective batch, and go on
    compile: bool = False  # true: time backbone and dense heads with and without torch.compile, keep the faster

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.precision in ("bf16", "fp16") and not self.mixed_precision:
            raise ValueError(f"precision: {self.precision} needs mixed_precision: true; set it, or precision: auto")
        if self.precision in ("fp32", "fp64") and self.mixed_precision:
            raise ValueError(
                f"mixed_precision: true contradicts precision: {self.precision}; set precision: auto, bf16 or fp16"
            )
        first, last = self.profile_batches
        if last < first:
            raise ValueError(f"profile_batches begins with {first} and ends with {last}; write [{last}, {first}]")
        if self.stages:  # the only number of epochs there is then
            object.__setattr__(self, "num_epochs", sum(stage.epochs for stage in self.stages))
        return self
