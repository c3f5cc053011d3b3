"""Rules that two sections of a configuration have together."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cabruca.errors import ConfigError

if TYPE_CHECKING:
    from cabruca.config.schema import Config


def check_sections(config: Config) -> None:
    """Look at values of different sections side by side.

    Raises:
        ValueError: two of them do not fit; begins with the dotted key.
    """
    weights, count = config.loss.semantic_class_weights, config.model.num_semantic_classes
    if weights is not None and len(weights) != count:
        raise ValueError(f"loss.semantic_class_weights has {len(weights)} values for {count} classes; give {count}")
    overlap, side = config.data.overlap, config.validation.max_side_px
    if overlap >= side:
        raise ValueError(f"data.overlap {overlap} is not smaller than validation.max_side_px {side}; use {side // 8}")


NUM_EPOCHS = "training.num_epochs"


def refuse_epochs_beside_stages(config: Config, flags: Collection[str]) -> None:
    """Stages have their own numbers of epochs; a flag that asks for another number would be undone.

    Args:
        flags: dotted keys that were given on the command line.

    Raises:
        ConfigError: `training.num_epochs` is among `flags` and there are stages.
    """
    if config.training.stages and NUM_EPOCHS in flags:
        lengths = " + ".join(str(stage.epochs) for stage in config.training.stages)
        raise ConfigError(
            f"--epochs ({NUM_EPOCHS}) contradicts training.stages, whose epochs are {lengths}; leave it out, set the "
            "stages' epochs, or switch them off with --set training.stages=[]"
        )


def stage_notice(config: Config, given: Collection[str]) -> list[str]:
    """The line that says that a file's number of epochs is not used, where stages stand beside it.

    Args:
        given: dotted keys that file and flags set.
    """
    if not config.training.stages or NUM_EPOCHS not in given:
        return []
    return [f"{NUM_EPOCHS} is not used beside training.stages, whose epochs make {config.training.num_epochs}"]
