"""The section `model`: which network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cabruca.config.base import INSTANCE_NAMES, SEMANTIC_NAMES, AnchorSizes, Section

Head = Literal["instance", "semantic", "crown", "density"]


class ModelConfig(Section):
    num_instance_classes: Annotated[int, Field(ge=2)] = 3  # background included, as the predecessor counted
    num_semantic_classes: Annotated[int, Field(ge=2)] = 6  # background included
    instance_class_names: tuple[str, ...] | None = None  # None: cacao_tree, shade_tree, class_3 ...
    semantic_class_names: tuple[str, ...] | None = None  # None: background, cacao_tree, shade_tree, understory ...
    backbone: str = "resnet50"  # a timm model that offers feature maps at strides 4 to 32
    pretrained: Literal["imagenet", "none"] = "imagenet"  # backbone weights; none: random, with GroupNorm
    heads: tuple[Head, ...] = ("instance", "semantic", "crown", "density")  # what is learnt
    fpn_channels: PositiveInt = 256  # a multiple of 32
    box_head_channels: PositiveInt = 1024  # width of the two layers behind RoI pooling
    mask_head_layers: PositiveInt = 4  # 3x3 convolutions before the mask's upsampling
    anchor_sizes_px: AnchorSizes = (16.0, 32.0, 64.0, 128.0, 256.0)  # one a pyramid level, fine to coarse
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)  # height over width
    proposals: PositiveInt = 1000  # kept a picture after RPN's NMS
    rois_per_picture: PositiveInt = 256  # sampled for the box head in training
    masks_per_picture: PositiveInt = 64  # positives sampled for the mask head in training
    use_sam: bool = False  # refused when true: not supported
    sam_checkpoint: str | None = None  # accepted, never read
    pretrained_checkpoint: str | None = None  # weights that a fresh run begins with: a checkpoint or a state dict

    @property
    def instance_names(self) -> tuple[str, ...]:
        """Names of classes 1 .. num_instance_classes - 1."""
        return self.instance_class_names or _names(INSTANCE_NAMES, self.num_instance_classes - 1, start=1)

    @property
    def semantic_names(self) -> tuple[str, ...]:
        """Names of classes 0 .. num_semantic_classes - 1."""
        return self.semantic_class_names or _names(SEMANTIC_NAMES, self.num_semantic_classes, start=0)

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.use_sam:
            raise ValueError("use_sam: true is not supported (cabruca has no SAM branch); set use_sam: false")
        for kind, count in (("instance", self.num_instance_classes - 1), ("semantic", self.num_semantic_classes)):
            names = getattr(self, f"{kind}_class_names")
            if names and len(names) != count:
                told = f"num_{kind}_classes: {getattr(self, f'num_{kind}_classes')}"
                background = " (it counts the background)" if kind == "instance" else ""
                raise ValueError(f"{kind}_class_names has {len(names)} names, {told}{background} asks for {count}")
        if not self.heads:
            raise ValueError("heads is empty; name at least one of instance, semantic, crown, density")
        if len(set(self.heads)) < len(self.heads):
            raise ValueError(f"heads names one twice: {', '.join(self.heads)}; name each once")
        if self.fpn_channels % 32:
            near = max(32, round(self.fpn_channels / 32) * 32)
            raise ValueError(
                f"fpn_channels {self.fpn_channels} is not a multiple of 32 (GroupNorm has 32 groups); use {near}"
            )
        return self


def _names(known: tuple[str, ...], count: int, start: int) -> tuple[str, ...]:
    return tuple(known[i] if i < len(known) else f"class_{i + start}" for i in range(count))
