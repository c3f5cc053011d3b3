"""The stages of a run: which epochs, tile size and rates each has. A run without stages is one stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cabruca.config.load import scale_learning_rates
from cabruca.config.schema import Config


@dataclass(frozen=True)
class StageSpan:
    """One stage.

    Attributes:
        index: 0-based.
        first_epoch, end_epoch: its epochs are `first_epoch <= epoch < end_epoch`, counted over the whole run.
        tile_size: side of its training windows, px.
        config: the run's configuration with this stage's rates: `optimizer.lr` is the stage's, parameter groups and
            the peak of onecycle keep their proportion to it.
    """

    index: int
    first_epoch: int
    end_epoch: int
    tile_size: int
    config: Config

    @property
    def epochs(self) -> int:
        return self.end_epoch - self.first_epoch


def stages_of(config: Config) -> tuple[StageSpan, ...]:
    """The stages in order; at least one."""
    if not config.training.stages:
        return (StageSpan(0, 0, config.training.num_epochs, config.data.tile_size, config),)
    out: list[StageSpan] = []
    for i, stage in enumerate(config.training.stages):
        first = out[-1].end_epoch if out else 0
        same = stage.lr is None or stage.lr == config.optimizer.lr
        own = config if same else scale_learning_rates(config, float(stage.lr or 0.0))
        out.append(StageSpan(i, first, first + stage.epochs, stage.tile_size, own))
    return tuple(out)


def stage_at(stages: Sequence[StageSpan], epoch: int) -> StageSpan:
    """The stage that epoch `epoch` (0-based) belongs to; the last one for all after the run's end."""
    return next((stage for stage in stages if epoch < stage.end_epoch), stages[-1])


def tile_size_at(config: Config, epoch: int) -> int:
    """Side of the training windows in epoch `epoch`, px."""
    end = 0
    for stage in config.training.stages:
        end += stage.epochs
        if epoch < end:
            return stage.tile_size
    return final_tile_size(config)


def final_tile_size(config: Config) -> int:
    """Side of the training windows that the network has seen last, px: those of the last stage."""
    stages = config.training.stages
    return stages[-1].tile_size if stages else config.data.tile_size
