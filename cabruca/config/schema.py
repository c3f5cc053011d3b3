"""Every setting of cabruca, its default, its unit: the only place where defaults live.

All sections are optional; unknown keys are refused. Keys whose feature comes with a later release are in
`LATER`: they load, and `notices` says so when they are switched on. The comment behind a field is its line
in docs/configuration.md. The message of a section's own check begins with the field's name, so that the
section's name can be set in front of it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from cabruca.config.later import LATER as LATER  # noqa: PLC0414 (offered here too)
from cabruca.config.rules import check_sections

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
Head = Literal["instance", "semantic", "crown", "density"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A probability or a proportion, 0..1."""

AnchorSizes = Annotated[tuple[PositiveFloat, ...], Field(min_length=4)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]

INSTANCE_NAMES = ("cacao_tree", "shade_tree")
PARTS = ("backbone", "heads", "custom")  # of the network, as parameter groups name them
SEMANTIC_NAMES = ("background", "cacao_tree", "shade_tree", "understory", "bare_soil", "shadows")


class Section(BaseModel):
    """Strict, frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


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
    pretrained_checkpoint: str | None = None  # a whole network to start from

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


class AugmentationConfig(Section):
    enabled: bool = True  # false: windows are only placed at random, never changed
    random_flip: Share = 0.5  # probability of each of the two flips; quarter turns come with it
    random_rotate: Share = 0.3  # probability of a free rotation, any angle up to rotate_degrees
    rotate_degrees: NonNegativeFloat = 15.0  # largest free rotation, degrees
    random_scale: Share = 0.3  # probability of a zoom within scale_range
    scale_range: tuple[PositiveFloat, PositiveFloat] = (0.8, 1.25)  # smallest and largest zoom
    brightness_contrast: Share = 0.4  # probability of a change of brightness and contrast
    brightness_contrast_limit: Share = 0.2  # largest relative change
    random_crop: bool = False  # true: part of the windows is cut smaller and enlarged to tile_size

    @model_validator(mode="after")
    def _check(self) -> AugmentationConfig:
        low, high = self.scale_range
        if low > high:
            raise ValueError(f"scale_range begins with {low} and ends with {high}; write [{high}, {low}]")
        return self


class DataConfig(Section):
    train_dir: str = "data/train"  # images folder; file_name of a COCO file is relative to it
    val_dir: str = "data/val"  # images folder of validation
    test_dir: str = "data/test"  # images folder of the held-out test; not served yet
    train_annotations: str = "data/annotations/train.json"  # COCO
    val_annotations: str = "data/annotations/val.json"  # COCO
    test_annotations: str = "data/annotations/test.json"  # COCO; not served yet
    batch_size: PositiveInt = 4  # pictures in one forward pass, over all workers
    num_workers: NonNegativeInt | None = None  # loader processes; None: chosen from the cores
    pin_memory: bool | None = None  # None: on CUDA
    tile_size: Annotated[int, Field(ge=64, multiple_of=32)] = 512  # side of a training window, px
    overlap: NonNegativeInt = 64  # px, of validation and prediction grids
    category_map: dict[str, str] = Field(default_factory=dict)  # dataset category -> class name, or ignore
    bands: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 3)  # 1-based raster bands, in network order
    scale: PositiveFloat | None = None  # pixel values are divided by it; None: 255 for uint8, 65535 for uint16, 1 else
    mean: tuple[float, ...] | None = None  # per band after scaling; None: measured on training windows
    std: tuple[PositiveFloat, ...] | None = None  # per band after scaling; None: measured
    target_gsd_m: PositiveFloat | None = None  # windows are resampled to it at read; None: native
    windows_per_epoch: PositiveInt | Literal["auto"] = "auto"  # auto: sum of ceil(labelled px / tile_size^2)
    min_visible_share: Share = 0.3  # a crown cut by a window's edge is kept while this share of it is left
    cache_mb: NonNegativeInt = 512  # decoded small pictures kept in memory, per loading process
    augmentation: AugmentationConfig = AugmentationConfig()

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.overlap >= self.tile_size:
            raise ValueError(
                f"overlap {self.overlap} is not smaller than tile_size {self.tile_size}; use {self.tile_size // 8}"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.bands):
                raise ValueError(f"{name} has {len(values)} values and bands has {len(self.bands)}; give one a band")
        return self


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


class TrainingConfig(Section):
    num_epochs: PositiveInt = 100  # epochs of this stage
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
    profile: bool = False  # not served yet
    profile_batches: tuple[NonNegativeInt, NonNegativeInt] = (10, 20)  # first and last batch; not served yet

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.precision in ("bf16", "fp16") and not self.mixed_precision:
            raise ValueError(f"precision: {self.precision} needs mixed_precision: true; set it, or precision: auto")
        if self.precision in ("fp32", "fp64") and self.mixed_precision:
            raise ValueError(
                f"mixed_precision: true contradicts precision: {self.precision}; set precision: auto, bf16 or fp16"
            )
        return self


class TrackingConfig(Section):
    tensorboard: bool = True  # write tensorboard/ in the run folder
    mlflow: bool = False  # log to MLflow
    mlflow_uri: str | None = None  # None: sqlite:///<output_dir>/mlflow.db
    wandb: bool = False  # log to Weights & Biases
    wandb_project: str = "cabruca"  # project the run is filed under
    wandb_entity: str | None = None  # team or user; None: your default


class ValidationConfig(Section):
    frequency: PositiveInt = 1  # epochs between validations
    max_side_px: Annotated[int, Field(ge=64, multiple_of=32)] = 1024  # larger pictures are validated in a grid
    batch_size: PositiveInt = 1  # pictures of one size in a validation pass
    score_threshold: Share = 0.5  # crowns above it are counted
    max_detections: PositiveInt = 300  # per picture or grid window, mAP's cap too
    nms_iou: Share = 0.5  # crowns of a class that overlap more are one
    save_predictions: bool = True  # save validation pictures with crowns drawn
    num_pictures: NonNegativeInt = 4  # pictures a validation saves
    calculate_agroforestry_metrics: bool = False  # not served yet
    plantation_data: str | None = None  # plantation inventory, JSON; not served yet


class TestingConfig(Section):
    batch_size: PositiveInt = 1  # not served yet
    save_outputs: bool = True  # not served yet
    generate_report: bool = False  # not served yet


class Config(Section):
    """The whole configuration."""

    experiment_name: RunName | None = None  # names folder and tracker runs; None: cabruca_<YYYYmmdd_HHMMSS>
    output_dir: str = "outputs"  # run folders are made here
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: cuda, mps, cpu, the first that is there
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    tracking: TrackingConfig = TrackingConfig()
    validation: ValidationConfig = ValidationConfig()
    testing: TestingConfig = TestingConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        check_sections(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain containers (lists, not tuples), ready for YAML and for a checkpoint."""
        out: dict[str, Any] = self.model_dump(mode="json")
        return out
