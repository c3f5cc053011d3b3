"""What learns: network, optimizer, schedule and precision of a run, built from the configuration and saved as one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cabruca.config.schema import Config
from cabruca.config.stages import StageSpan, stage_at, stages_of
from cabruca.runtime import Runtime
from cabruca.train import compiling
from cabruca.train.averaging import Average
from cabruca.train.optim import build_optimizer, left_out, load_optimizer, parameter_groups
from cabruca.train.precision import resolve
from cabruca.train.protocols import NOTICE, Metrics, StageInfo, State, Task, compilable
from cabruca.train.schedule import Schedule, Span
from cabruca.train.state import load_weights
from cabruca.train.step import Stepper
from cabruca.train.unfreezing import Thaw

log = logging.getLogger("cabruca")


class Learner:
    """Built alike on every rank.

    Attributes:
        stages: of the run, at least one; `stage` is the one that the schedule and the optimizer are of.
        model: the network that is trained; `average`: the moving average of its weights, or None.
        compiled: whether torch.compile was found to pay; None: it was not asked for.

    Args:
        config: resolved.
        task: gives the network and the part each parameter belongs to.
        runtime: gives the device.
        stage_steps: optimizer steps of each stage, which one-cycle needs.
        first_step: optimizer steps taken where this process begins.
        stage: number of the stage that a resumed state is of; `enter` goes on from there.
    """

    def __init__(
        self,
        config: Config,
        task: Task,
        runtime: Runtime,
        *,
        stage_steps: Sequence[int],
        first_step: int = 0,
        stage: int = 0,
    ) -> None:
        self.config, self.task, self.runtime = config, task, runtime
        self.precision = resolve(config.training, runtime.device.type)
        self.model = task.build_model().to(runtime.device, self.precision.dtype)
        if config.training.channels_last:  # touches 4-dimensional weights only
            self.model.to(memory_format=torch.channels_last)
        self.compiled: bool | None = None
        self.stages, self._stage_steps = stages_of(config), stage_steps
        self._groups = [parameter_groups(self.model, s.config.optimizer, task.parameter_part) for s in self.stages]
        for line in left_out(self._groups[0], config.optimizer):
            log.info("%s", line, extra=NOTICE)
        self.thaw = Thaw(self.model, config.training.unfreeze, task.parameter_part)
        decay = config.training.ema_decay
        self.average = Average(self.model, decay) if decay else None
        self._begin(self.stages[min(stage, len(self.stages) - 1)], first_step)

    def _begin(self, stage: StageSpan, first_step: int) -> None:
        """Optimizer and schedule of `stage`, which begins after `first_step` optimizer steps, without any past."""
        groups, own = self._groups[stage.index], stage.config
        self.stage = stage
        self.optimizer = build_optimizer(groups, own.optimizer)
        span = Span(
            base_lr=own.optimizer.lr,
            group_lrs=[group.lr for group in groups],
            num_epochs=stage.epochs,
            total_steps=self._stage_steps[stage.index],
            mode="min" if own.training.minimize_metric else "max",
            group_names=[group.name for group in groups],
        )
        self.schedule = Schedule(own.scheduler, span, first_step=first_step)
        self.stepper = Stepper(
            self.task,
            self.model,
            self.optimizer,
            precision=self.precision,
            runtime=self.runtime,
            clip=own.training.gradient_clip,
            redoable=own.training.on_oom == "shrink" or own.training.compile,
        )

    def enter(self, epoch: int, step: int) -> bool:
        """Be ready for the epoch after `epoch` completed ones: begin its stage, thaw what is due; True in a new stage.

        Args:
            step: optimizer steps taken.
        """
        stage = stage_at(self.stages, epoch)
        new = stage.index != self.stage.index
        if new:
            self._begin(stage, step)
        self.thaw.apply(epoch)
        return new

    @property
    def validated(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.model if self.average is None else self.average.model

    def compile(self, batches: Callable[[int], Iterable[Any]]) -> None:
        """Compile the model where that is faster, or as the state that was loaded says; `batches`: see `compiling`."""
        trial = compiling.Trial(self.task, self.model, self.precision, self.runtime)
        self.compiled = compiling.choose(trial, batches, saved=self.compiled)

    def run_plain(self, why: str) -> None:
        """No compiled parts from here on, because of `why`; a resumed run goes on like that."""
        compiling.give_up(compilable(self.task, self.model), why)
        self.compiled = False

    def describe_stages(self) -> list[StageInfo]:
        """For people."""
        return [
            StageInfo(s.first_epoch, s.epochs, steps // s.epochs, s.tile_size, s.config.optimizer.lr)
            for s, steps in zip(self.stages, self._stage_steps, strict=True)
        ]

    def set_rates(self, step: int, epoch: int) -> None:
        """Give every parameter group its rate for the optimizer step after `step` steps and `epoch` epochs."""
        rates = self.schedule.rates(step, epoch - self.stage.first_epoch)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def rates(self) -> Metrics:
        """`lr/<group>` as set last, of the groups in which something learns."""
        learning = [g for g in self.optimizer.param_groups if any(p.requires_grad for p in g["params"])]
        return {f"lr/{group['name']}": float(group["lr"]) for group in learning}

    def after_step(self, *, skipped: bool) -> None:
        """The average follows every step that was taken."""
        if self.average is not None and not skipped:
            self.average.update()

    def share_facts(self) -> None:
        """Bool buffers note what the network has met ("a mask of this class was learnt from"): join those of all ranks.

        Other buffers need no joining: batch norms are frozen, so every rank holds the same.
        """
        if self.runtime.world_size > 1:
            for noted in (b for b in self.model.buffers() if b.dtype == torch.bool):
                noted.copy_(self.runtime.sum(noted.int()) > 0)
        if self.average is not None:
            self.average.copy_buffers()

    def load_weights(self, state: State) -> None:
        """Weights of a checkpoint, names and shapes checked: `trained` where it has an average too, else `model`.

        Raises:
            CheckpointError: they are of another network.
        """
        kept: Mapping[str, Tensor] = state.get("model", {})
        load_weights(self.model, state.get("trained", kept))
        if self.average is not None:
            self.average.begin_anew()
            if "trained" in state:
                load_weights(self.average.model, kept)
                self.average.restart(int(state.get("ema_updates", 0)))

    def state_dict(self) -> State:
        """`model`, `optimizer`, `scheduler`, `scaler`, `stage_index` of a checkpoint; aliases the live tensors.

        With an average `model` is the averaged network, `trained` the one that a resumed run goes on with.
        """
        state: State = {
            "model": dict(self.validated.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict(),
            "scaler": self.precision.state_dict(),
            "stage_index": self.stage.index,
        }
        if self.average is not None:
            state |= {"trained": dict(self.model.state_dict()), "ema_updates": self.average.updates}
        if self.compiled is not None:
            state["compiled"] = self.compiled
        return state

    def load_state_dict(self, state: State) -> None:
        """All but the weights.

        Raises:
            CheckpointError: the state is of another kind of optimizer.
        """
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state.get("scheduler", {}))
        self.precision.load_state_dict(state.get("scaler", {}))
        self.compiled = state.get("compiled")
