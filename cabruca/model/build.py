"""From a configuration to a network, the same one for the same seed."""

from __future__ import annotations

import torch

from cabruca.config.schema import Config
from cabruca.draws import draw_key
from cabruca.model.segmenter import Segmenter
from cabruca.structures import InputSpec


def build_model(config: Config, spec: InputSpec, *, weights: bool = True) -> Segmenter:
    """A fresh network on the CPU; a function of `training.seed`; the global random state is left as it was.

    Args:
        weights: False leaves the backbone without its pretrained weights, for a state dict that comes next.

    Raises:
        ConfigError: the backbone is unknown or its weights cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_key(config.training.seed, 0) % (1 << 63))
        return Segmenter(config, spec, weights=weights)
