"""Which tensors of a file fit which tensors of a network, and the strict report of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cabruca.errors import CheckpointError

BODY = "backbone.body."
"""Where the network keeps its feature extractor: a bare timm or torchvision network is looked for under this name."""

IGNORED = ("mean", "std")
"""Buffers of early checkpoints; the input's mean and deviation come from the input specification alone."""

_STRIPPED = ("", "backbone.", "encoder.", "model.", "network.")
_ADDED = ("", BODY)
_COUNTER = ".num_batches_tracked"
"""Batch norm's step counter: some files lack it, and a frozen norm never reads it."""


@dataclass(frozen=True)
class Match:
    """What became of every tensor, of the file and of the network.

    Attributes:
        fitting: network's name -> the file's tensor, of the same shape.
        other_shape: network's name -> (shape in the file, shape in the network).
        not_in_file: network's names. unused: the file's names.
        renamed: what was taken off and what was put in front of the file's names, `("", "")` where they were ours.
    """

    fitting: Mapping[str, Tensor]
    other_shape: Mapping[str, tuple[list[int], list[int]]]
    not_in_file: tuple[str, ...]
    unused: tuple[str, ...]
    renamed: tuple[str, str]

    @property
    def covers_body(self) -> bool:
        """Whether nothing of the feature extractor would keep its first values."""
        left = [*self.other_shape, *self.not_in_file]
        return any(k.startswith(BODY) for k in self.fitting) and not any(k.startswith(BODY) for k in left)

    def parts(self, part: Callable[[str], str]) -> dict[str, dict[str, int]]:
        """Part of the network -> how many of its tensors were taken, have another shape, are not in the file."""
        kinds = {"taken": self.fitting, "other_shape": self.other_shape, "not_in_file": self.not_in_file}
        names = [name for found in kinds.values() for name in found]
        out = {one: dict.fromkeys(kinds, 0) for one in dict.fromkeys(map(part, names))}
        for kind, found in kinds.items():
            for name in found:
                out[part(name)][kind] += 1
        return out


def match(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Match:
    """Lay a file's tensors beside the network's, under the names that most of them fit by.

    Args:
        weights: of the file. own: the network's state dict.
    """
    tries = [(take, put) for put in _ADDED for take in _STRIPPED]
    best = max(tries, key=lambda names: sum(_fits(n, v, own) for n, v in _renamed(weights, names).items()))
    named = _renamed(weights, best)
    back = {new: old for old in weights if (new := _new_name(old, best)) is not None}
    fitting = {n: v for n, v in named.items() if _fits(n, v, own)}
    other = {n: (list(v.shape), list(own[n].shape)) for n, v in named.items() if n in own and n not in fitting}
    missing = [n for n in own if n not in named and n not in IGNORED and not n.endswith(_COUNTER)]
    used = {back[name] for name in (*fitting, *other)}
    unused = [old for old in weights if old not in used]
    return Match(fitting, other, tuple(missing), tuple(unused), best if any(fitting) else ("", ""))


def refuse_misfit(found: Match, own: Mapping[str, Tensor], part: Callable[[str], str], source: str) -> None:
    """Heads and pyramids of other sizes begin anew; another feature extractor, or another norm, is no start at all.

    Args:
        part: parameter name -> backbone, heads or custom. source: where the tensors come from, for messages.

    Raises:
        CheckpointError: nothing fits; the file holds another backbone; or one with another kind of norm.
    """
    if not found.fitting:
        raise CheckpointError(
            f"none of the {len(found.unused) + len(found.other_shape)} tensors of {source} fits the model "
            f"('{next(iter([*found.unused, *found.other_shape]))}' is its first, '{next(iter(own))}' the model's); "
            "use a checkpoint of the same backbone and heads"
        )
    _refuse_other_norm(found, own, source)
    counts = found.parts(part).get("backbone", {"taken": 0, "other_shape": 0, "not_in_file": 0})
    mine = sum(counts.values())
    has_backbone = counts["taken"] or counts["other_shape"]
    if has_backbone and 2 * counts["taken"] < mine:
        raise CheckpointError(
            f"{source} fits {counts['taken']} of the {mine} tensors of the backbone: it is of another network; set "
            "model.backbone to the one that the file was trained with, or leave the file out"
        )


def _refuse_other_norm(found: Match, own: Mapping[str, Tensor], source: str) -> None:
    """A norm's scale means nothing beside statistics that are not the file's."""
    theirs = any(name.endswith(".running_mean") for name in (*found.unused, *found.fitting))
    mine = any(name.startswith(BODY) and name.endswith(".running_mean") for name in own)
    kept = any(name.startswith(BODY) and name.endswith(".running_mean") for name in found.not_in_file)
    body = any(name.startswith(BODY) for name in found.fitting)
    if body and theirs and not mine:
        raise CheckpointError(
            f"{source} holds batch norm and model.pretrained: none builds a network with group norm; set "
            "model.pretrained: imagenet (batch norm, frozen; nothing is fetched, the file fills it)"
        )
    if body and kept and not theirs:
        raise CheckpointError(
            f"{source} holds no batch norm statistics and model.pretrained: imagenet builds a network that needs them; "
            "set model.pretrained: none (group norm)"
        )


def report_of(found: Match, part: Callable[[str], str], source: str) -> dict[str, Any]:
    """The whole report as plain containers: counts by part, then every name."""
    return {
        "source": source,
        "renamed": {"taken_off": found.renamed[0], "put_in_front": found.renamed[1]},
        "parts": found.parts(part),
        "taken": sorted(found.fitting),
        "other_shape": {n: {"file": a, "network": b} for n, (a, b) in sorted(found.other_shape.items())},
        "not_in_file": sorted(found.not_in_file),
        "unused": sorted(found.unused),
    }


def lines_of(found: Match, part: Callable[[str], str], source: str) -> list[str]:
    """The report for people: one line for the file, one for each part of the network."""
    total = len(found.fitting) + len(found.other_shape) + len(found.not_in_file)
    unused = f"; {len(found.unused)} of the file are not used ({_some(found.unused)})" if found.unused else ""
    lines = [f"{len(found.fitting)} of the network's {total} tensors come from {source}{unused}"]
    for name, count in found.parts(part).items():
        other = [f"{n} {a} in the file, {b} here" for n, (a, b) in found.other_shape.items() if part(n) == name]
        absent = [n for n in found.not_in_file if part(n) == name]
        text = f"  {name}: {count['taken']} of {sum(count.values())} taken"
        text += f"; {len(other)} of another shape begin anew ({_some(other)})" if other else ""
        text += f"; {len(absent)} not in the file begin anew ({_some(absent)})" if absent else ""
        lines.append(text)
    return lines


def _fits(name: str, value: Tensor, own: Mapping[str, Tensor]) -> bool:
    return name in own and own[name].shape == value.shape


def _renamed(weights: Mapping[str, Tensor], names: tuple[str, str]) -> dict[str, Tensor]:
    return {new: value for old, value in weights.items() if (new := _new_name(old, names)) is not None}


def _new_name(old: str, names: tuple[str, str]) -> str | None:
    take, put = names
    return put + old.removeprefix(take) if old.startswith(take) else None


def _some(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
