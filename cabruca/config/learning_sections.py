"""The sections `optimizer`, `scheduler` and `loss`: what a gradient is of, and what it does."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cabruca.config.base import PARTS, BelowOne, Section, Share


class ParamGroup(Section):
    name: str  # backbone, heads, custom, or a new name with match
    lr: PositiveFloat | None = None  # None: optimizer.lr
    weight_decay: NonNegativeFloat | None = None  # None: optimizer.weight_decay
    match: str | None = None  # glob over parameter names, e.g. "instance.mask*"


class OptimizerConfig(Section):
    type: Literal["adamw", "adam", "sgd"] = "adamw"  # how gradients become steps
    lr: PositiveFloat = 1e-4  # learning rate; --lr scales every group by lr / optimizer.lr
    weight_decay: NonNegativeFloat = 0.01  # of every group that names none
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)  # adam, adamw
    momentum: BelowOne = 0.9  # sgd
    nesterov: bool = True  # sgd
    param_groups: tuple[ParamGroup, ...] = ()  # backbone, heads, custom, or a new name with match

    @model_validator(mode="after")
    def _check(self) -> OptimizerConfig:
        seen: set[str] = set()
        for group in self.param_groups:
            if group.name in seen:
                raise ValueError(f"param_groups names '{group.name}' twice; keep one of them")
            if group.name not in PARTS and group.match is None:
                raise ValueError(
                    f"param_groups: '{group.name}' is none of {', '.join(PARTS)} and has no match; give it a match "
                    "such as 'backbone.layer4*'"
                )
            seen.add(group.name)
        if self.type == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs momentum; set nesterov: false, or momentum: 0.9")
        return self


class SchedulerConfig(Section):
    type: Literal["cosine", "plateau", "onecycle", "cosine_warm_restarts", "exponential", "none"] = (
        "cosine"  # none: flat
    )
    warmup_steps: NonNegativeInt = 0  # optimizer steps of linear warm-up, before any scheduler
    T_max: PositiveInt | None = None  # cosine: epochs to eta_min; None: num_epochs
    eta_min: NonNegativeFloat = 1e-7  # cosine, warm restarts: lowest rate
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5  # plateau: the rate is multiplied by it
    patience: NonNegativeInt = 10  # plateau: validations without improvement
    min_lr: NonNegativeFloat = 1e-7  # plateau: lowest rate
    max_lr: PositiveFloat | None = None  # onecycle: peak; None: 10 x optimizer.lr
    pct_start: Share = 0.3  # onecycle: share of the steps that rise
    T_0: PositiveInt = 10  # warm restarts: epochs of the first cycle
    T_mult: PositiveInt = 2  # warm restarts: factor from cycle to cycle
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95  # exponential: factor an epoch


class LossConfig(Section):
    instance_weight: NonNegativeFloat = 1.0  # loss = sum of weight x loss over the heads
    semantic_weight: NonNegativeFloat = 1.0  # weight of the semantic loss
    crown_weight: NonNegativeFloat = 0.5  # weight of the crown diameter loss
    density_weight: NonNegativeFloat = 0.5  # weight of the canopy density loss
    semantic_class_weights: tuple[NonNegativeFloat, ...] | None = None  # one a semantic class
    semantic_dice: NonNegativeFloat = 0.0  # weight of a Dice term beside the cross-entropy
