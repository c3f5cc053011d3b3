"""Every setting of cabruca, its default, its unit: this module and the `*_section.py` and `*_sections.py` beside it are
the only place where defaults live.

All sections are optional; unknown keys are refused. The comment behind a field is its line in
docs/configuration.md. The message of a section's own check begins with the field's name, so that the
section's name can be set in front of it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cabruca.config.base import INSTANCE_NAMES, PARTS, SEMANTIC_NAMES, RunName, Section, Share, TileSize
from cabruca.config.data_section import AugmentationConfig, DataConfig
from cabruca.config.distributed_section import DistributedConfig
from cabruca.config.learning_sections import LossConfig, OptimizerConfig, ParamGroup, SchedulerConfig
from cabruca.config.model_section import Head, ModelConfig
from cabruca.config.rules import check_sections
from cabruca.config.training_section import Precision, Stage, TrainingConfig, Unfreeze

__all__ = [
    "INSTANCE_NAMES",
    "PARTS",
    "SEMANTIC_NAMES",
    "AugmentationConfig",
    "Config",
    "DataConfig",
    "DistributedConfig",
    "Head",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParamGroup",
    "Precision",
    "SchedulerConfig",
    "Section",
    "Stage",
    "TestingConfig",
    "TrackingConfig",
    "TrainingConfig",
    "Unfreeze",
    "ValidationConfig",
]


class TrackingConfig(Section):
    tensorboard: bool = True  # write tensorboard/ in the run folder
    mlflow: bool = False  # log to MLflow
    mlflow_uri: str | None = None  # None: sqlite:///<output_dir>/mlflow.db
    wandb: bool = False  # log to Weights & Biases
    wandb_project: str = "cabruca"  # project the run is filed under
    wandb_entity: str | None = None  # team or user; None: your default
    mlflow_experiment: str = "cabruca"  # MLflow experiment that all runs are filed under
    system_metrics_s: NonNegativeFloat = 10.0  # seconds between measurements of CPU, memory, disk and GPU; 0: none


class ValidationConfig(Section):
    frequency: PositiveInt = 1  # epochs between validations
    max_side_px: TileSize = 1024  # larger pictures are validated in a grid
    batch_size: PositiveInt = 1  # pictures of one size in a validation pass
    score_threshold: Share = 0.5  # crowns above it are counted
    max_detections: PositiveInt = 300  # per picture or grid window, mAP's cap too
    nms_iou: Share = 0.5  # crowns of a class that overlap more are one
    save_predictions: bool = True  # save validation pictures with crowns drawn
    num_pictures: NonNegativeInt = 4  # pictures a validation saves
    calculate_agroforestry_metrics: bool = True  # species, crowns, spacing and shade of the plot
    plantation_data: str | None = None  # plantation inventory to compare with, JSON or CSV
    shade_radius_m: PositiveFloat = 12.0  # a cacao tree nearer than this to a shade tree stands in its shade
    shade_grid_m: PositiveFloat = 10.0  # side of the cells that the shade distribution is compared in


class TestingConfig(Section):
    batch_size: PositiveInt = 1  # pictures of one size in a pass over the test set
    save_outputs: bool = True  # save test pictures with crowns drawn, validation.num_pictures of them
    generate_report: bool = False  # write test/report.md


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
    distributed: DistributedConfig = DistributedConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        check_sections(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain containers (lists, not tuples), ready for YAML and for a checkpoint."""
        out: dict[str, Any] = self.model_dump(mode="json")
        return out
