"""What learns: network, optimizer, schedule and precision of a run, built from the configuration and saved as one."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from cabruca.config.schema import Config
from cabruca.runtime import Runtime
from cabruca.train.optim import build_optimizer, left_out, load_optimizer, parameter_groups
from cabruca.train.precision import resolve
from cabruca.train.protocols import NOTICE, Metrics, State, Task
from cabruca.train.schedule import Schedule, Span
from cabruca.train.state import load_weights
from cabruca.train.step import Stepper

log = logging.getLogger("cabruca")


class Learner:
    """Built alike on every rank.

    Args:
        config: resolved.
        task: gives the network and the part each parameter belongs to.
        runtime: gives the device.
        total_steps: optimizer steps of the whole run, which one-cycle needs.
        first_step: the counter of optimizer steps where this run begins.
    """

    def __init__(self, config: Config, task: Task, runtime: Runtime, *, total_steps: int, first_step: int) -> None:
        self.runtime = runtime
        self.precision = resolve(config.training, runtime.device.type)
        self.model = task.build_model().to(runtime.device, self.precision.dtype)
        if config.training.channels_last:  # touches 4-dimensional weights only
            self.model.to(memory_format=torch.channels_last)
        groups = parameter_groups(self.model, config.optimizer, task.parameter_part)
        for line in left_out(groups, config.optimizer):
            log.info("%s", line, extra=NOTICE)
        self.group_names = [group.name for group in groups]
        self.optimizer = build_optimizer(groups, config.optimizer)
        span = Span(
            base_lr=config.optimizer.lr,
            group_lrs=[group.lr for group in groups],
            num_epochs=config.training.num_epochs,
            total_steps=total_steps,
            mode="min" if config.training.minimize_metric else "max",
        )
        self.schedule = Schedule(config.scheduler, span, first_step=first_step)
        self.stepper = Stepper(
            task,
            self.model,
            self.optimizer,
            precision=self.precision,
            runtime=runtime,
            clip=config.training.gradient_clip,
        )

    def set_rates(self, step: int, epoch: int) -> None:
        """Give every parameter group its rate for the optimizer step after `step` steps and `epoch` epochs."""
        for group, rate in zip(self.optimizer.param_groups, self.schedule.rates(step, epoch), strict=True):
            group["lr"] = rate

    def rates(self) -> Metrics:
        """`lr/<group>` as set last."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return {f"lr/{name}": rate for name, rate in zip(self.group_names, rates, strict=True)}

    def share_facts(self) -> None:
        """Bool buffers note what the network has met ("a mask of this class was learnt from"): join those of all ranks.

        Other buffers need no joining: batch norms are frozen, so every rank holds the same.
        """
        if self.runtime.world_size > 1:
            for noted in (b for b in self.model.buffers() if b.dtype == torch.bool):
                noted.copy_(self.runtime.sum(noted.int()) > 0)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Weights of a checkpoint, names and shapes checked.

        Raises:
            CheckpointError: they are of another network.
        """
        load_weights(self.model, weights)

    def state_dict(self) -> State:
        """`model`, `optimizer`, `scheduler`, `scaler` of a checkpoint; aliases the live tensors."""
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict(),
            "scaler": self.precision.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """All but the weights.

        Raises:
            CheckpointError: the state is of another kind of optimizer.
        """
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state.get("scheduler", {}))
        self.precision.load_state_dict(state.get("scaler", {}))
