"""The optimizer and its parameter groups: every trainable parameter is in exactly one.

A group takes the parameters that its `match` glob names; a group without `match` takes the part of the network that
it is named after (`backbone`, `heads`, `custom`). Globs win over parts, the first match wins, and what no group
takes gets the defaults of the optimizer section under the name `default`. A group of a part that the network has not
(its heads are switched off) is left out. Weight decay follows the configuration plainly: nothing is exempted behind the
user's back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cabruca.config.schema import PARTS, OptimizerConfig, ParamGroup
from cabruca.errors import CheckpointError, ConfigError, did_you_mean

REST = "default"
"""Name of the group of the parameters that no configured group takes."""


@dataclass(frozen=True)
class Group:
    """One parameter group: its name, its settings and its parameters by name."""

    name: str
    lr: float
    weight_decay: float
    parameters: dict[str, nn.Parameter]

    def to_torch(self) -> dict[str, Any]:
        """As `torch.optim` wants it; with names, which end up in the optimizer's state."""
        return {
            "params": list(self.parameters.items()),
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "name": self.name,
        }


def parameter_groups(model: nn.Module, config: OptimizerConfig, part: Callable[[str], str]) -> list[Group]:
    """Divide the trainable parameters.

    Args:
        model: whose parameters with `requires_grad` are taken.
        config: the optimizer section.
        part: parameter name -> `backbone`, `heads` or `custom`.

    Raises:
        ConfigError: a group with `match`, or of a part there never is, takes nothing; a group has the name of the
            rest; or nothing is trainable.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ConfigError("the network has no trainable parameter; nothing can be learnt: unfreeze a part of it")
    names = [group.name for group in config.param_groups]
    if REST in names:
        raise ConfigError(f"optimizer.param_groups has '{REST}', the name of the rest; give the group another name")
    taken: dict[str, dict[str, nn.Parameter]] = {name: {} for name in [*names, REST]}
    for name, parameter in trainable.items():
        taken[_owner(name, config.param_groups, part)][name] = parameter
    for group in config.param_groups:
        if not taken[group.name] and (group.match is not None or group.name not in PARTS):
            raise ConfigError(_takes_nothing(group, trainable, part))
    groups = [_group(group, taken[group.name], config) for group in config.param_groups if taken[group.name]]
    rest = Group(REST, config.lr, config.weight_decay, taken[REST])
    return [*groups, rest] if rest.parameters else groups


def left_out(groups: Sequence[Group], config: OptimizerConfig) -> list[str]:
    """A line for each configured group that took nothing."""
    there = {group.name for group in groups}
    return [
        f"optimizer.param_groups '{group.name}' takes no trainable parameter (the network has none of that part, or "
        "another group's match took them all) and is left out"
        for group in config.param_groups
        if group.name not in there
    ]


def _owner(name: str, groups: Sequence[ParamGroup], part: Callable[[str], str]) -> str:
    by_match = (g.name for g in groups if g.match is not None and fnmatchcase(name, g.match))
    by_part = (g.name for g in groups if g.match is None and g.name == part(name))
    return next(by_match, None) or next(by_part, None) or REST


def _group(group: ParamGroup, parameters: dict[str, nn.Parameter], config: OptimizerConfig) -> Group:
    lr = config.lr if group.lr is None else group.lr
    decay = config.weight_decay if group.weight_decay is None else group.weight_decay
    return Group(group.name, lr, decay, parameters)


def _takes_nothing(group: ParamGroup, trainable: dict[str, nn.Parameter], part: Callable[[str], str]) -> str:
    if group.match is not None:
        stems = sorted({".".join(name.split(".")[:2]) for name in trainable})
        found = f"names begin with {', '.join(stems[:12])}"
        return (
            f"optimizer.param_groups '{group.name}' with match '{group.match}' takes no trainable parameter; "
            f"{found}: mend the glob (an earlier group's match wins) or remove the group"
        )
    parts = Counter(part(name) for name in trainable)
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(parts.items()))
    return (
        f"optimizer.param_groups '{group.name}' takes no trainable parameter{did_you_mean(group.name, parts)}; "
        f"there are {listed}: use one of these, give it a match glob, or remove the group"
    )


def _adamw(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


def _adam(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    return torch.optim.Adam(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


def _sgd(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, weight_decay=config.weight_decay
    )


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], OptimizerConfig], Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "sgd": _sgd,
}


def build_optimizer(groups: Sequence[Group], config: OptimizerConfig) -> Optimizer:
    """The configured optimizer over `groups`.

    Raises:
        ConfigError: `config.type` is not in OPTIMIZERS.
    """
    if config.type not in OPTIMIZERS:
        raise ConfigError(
            f"optimizer.type '{config.type}' is not known{did_you_mean(config.type, OPTIMIZERS)}; "
            f"use one of {', '.join(OPTIMIZERS)}"
        )
    return OPTIMIZERS[config.type]([group.to_torch() for group in groups], config)


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Restore moments by parameter name; rates, decay and betas stay those of the configuration.

    So a resumed run may divide its parameters into other groups, or change a rate, and keeps its moments.

    Raises:
        CheckpointError: the checkpoint is of another kind of optimizer.
    """
    by_name: dict[str, dict[str, Any]] = {}
    for group in saved["param_groups"]:
        for name, index in zip(group["param_names"], group["params"], strict=True):
            if index in saved["state"]:
                by_name[name] = saved["state"][index]
    current = optimizer.state_dict()
    indices = {n: i for g in current["param_groups"] for n, i in zip(g["param_names"], g["params"], strict=True)}
    ours, theirs = set(optimizer.defaults), set(saved["param_groups"][0])
    if ("betas" in ours) != ("betas" in theirs):
        raise CheckpointError(
            f"the checkpoint's optimizer is not a {type(optimizer).__name__}; resume with the same optimizer.type, "
            "or give a new --experiment-name to begin a stage with these weights"
        )
    state: dict[int, dict[str, Tensor]] = {indices[name]: value for name, value in by_name.items() if name in indices}
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})
