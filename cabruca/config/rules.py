"""Rules that two sections of a configuration have together."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    for stage in config.training.stages:
        if overlap >= stage.tile_size:
            raise ValueError(f"data.overlap {overlap} is not smaller than the tile_size {stage.tile_size} of a stage")
