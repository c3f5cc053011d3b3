"""A moving average of the weights, which is validated and kept, beside the weights that are trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Average:
    """`average = d * average + (1 - d) * weights` after each optimizer step, d = min(decay, (1 + n) / (10 + n)) where
    n counts the updates before this one.

    So early averages forget their random beginning (the warm-up of `tf.train.ExponentialMovingAverage`). Buffers are
    those of the trained network.

    Args:
        model: the network; the average begins with its weights of now and takes as much memory again.
        decay: `training.ema_decay`, above 0 and below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._source = model
        self._decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._blend)
        self.restart()

    @property
    def model(self) -> nn.Module:
        """The network with averaged weights."""
        return self._averaged.module

    @property
    def updates(self) -> int:
        return int(self._averaged.n_averaged) - 1

    def restart(self, updates: int = 0) -> None:
        """The weights in `model` are the average after `updates` updates."""
        # torch copies the weights in its update number 0; ours has them from the beginning
        self._averaged.n_averaged.fill_(updates + 1)

    def begin_anew(self) -> None:
        """The average is the network's weights of now."""
        self.model.load_state_dict(self._source.state_dict())
        self.restart()

    def update(self) -> None:
        """After an optimizer step."""
        self._averaged.update_parameters(self._source)

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """What the network notes in buffers, the average knows too."""
        for own, theirs in zip(self.model.buffers(), self._source.buffers(), strict=True):
            own.copy_(theirs)

    @torch.no_grad()
    def _blend(self, averaged: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count) - 1
        decay = min(self._decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(averaged), list(weights), 1.0 - decay)
