"""Gradual unfreezing: what `training.unfreeze` names learns nothing until its number of epochs is completed.

The optimizer knows every parameter from the first step on, and leaves alone what has no gradient: no moment, no weight
decay, no step counted. So a thaw is `requires_grad` and nothing else: the moments of what has learnt before, the
schedule and the rates of the groups go on, and a run that is resumed on either side of it is bitwise the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from cabruca.config.schema import PARTS, Unfreeze
from cabruca.errors import ConfigError, did_you_mean


class Thaw:
    """Which parameters are frozen in which epoch.

    A parameter that several entries name begins to learn with the earliest of them, so that `backbone` at epoch 10
    and `backbone.body.layer4*` at epoch 5 do what they say. Parameters that never learn (frozen batch norm) stay so.

    Args:
        model: with `requires_grad` as it was built.
        entries: `training.unfreeze`.
        part: parameter name -> `backbone`, `heads` or `custom`.

    Raises:
        ConfigError: an entry names nothing, only what never learns, or only what others let learn earlier; or nothing
            at all would learn at first.
    """

    def __init__(self, model: nn.Module, entries: Sequence[Unfreeze], part: Callable[[str], str]) -> None:
        self._entries = entries
        self._parameters = dict(model.named_parameters())
        learnable = [name for name, p in self._parameters.items() if p.requires_grad]
        self._begin: dict[str, int] = {}
        owned: list[list[str]] = []
        for entry in entries:
            named = [name for name in self._parameters if _names(entry.part, name, part)]
            own = [name for name in learnable if name in set(named)]
            if not own:
                raise ConfigError(_names_nothing(entry.part, bool(named), list(self._parameters), part))
            owned.append(own)
            for name in own:
                self._begin[name] = min(entry.epoch, self._begin.get(name, entry.epoch))
        for entry, own in zip(entries, owned, strict=True):
            if all(self._begin[name] < entry.epoch for name in own):
                raise ConfigError(_without_effect(entry, max(self._begin[name] for name in own)))
        if self._begin and all(self._begin.get(name, 0) > 0 for name in learnable):
            raise ConfigError(
                "training.unfreeze freezes every part of the network at epoch 0, so nothing would learn; leave a part "
                "out of it, or give one epoch: 0"
            )

    def apply(self, epoch: int) -> None:
        """Freeze and thaw for the epoch after `epoch` completed ones."""
        for name, begin in self._begin.items():
            parameter = self._parameters[name]
            parameter.requires_grad_(epoch >= begin)
            if epoch < begin:
                parameter.grad = None

    def due(self, epoch: int) -> list[str]:
        """The parts whose entry says that they begin to learn after exactly `epoch` epochs, 0 excepted."""
        return [entry.part for entry in self._entries if entry.epoch == epoch > 0]

    def frozen(self, epoch: int) -> list[str]:
        """`part (until epoch n)` for each entry that still holds something back after `epoch` completed epochs."""
        return [f"{entry.part} (until epoch {entry.epoch})" for entry in self._entries if entry.epoch > epoch]


def _names(wanted: str, name: str, part: Callable[[str], str]) -> bool:
    return part(name) == wanted if wanted in PARTS else fnmatchcase(name, wanted)


def _without_effect(entry: Unfreeze, latest: int) -> str:
    return (
        f"training.unfreeze part '{entry.part}' at epoch {entry.epoch} has no effect: other entries let all of it "
        f"learn by epoch {latest}; remove it, or give the entry that names more a later epoch"
    )


def _names_nothing(wanted: str, only_fixed: bool, names: Sequence[str], part: Callable[[str], str]) -> str:
    if only_fixed:
        return (
            f"training.unfreeze part '{wanted}' names only parameters that never learn (frozen batch norm); widen the "
            "glob or remove the entry"
        )
    stems = sorted({".".join(name.split(".")[:2]) for name in names})
    there = sorted({part(name) for name in names})
    return (
        f"training.unfreeze part '{wanted}' names no parameter of the network{did_you_mean(wanted, [*there, *stems])}; "
        f"use one of {', '.join(there)}, or a glob over names, which begin with {', '.join(stems[:12])}"
    )
