"""The map from a data set's categories to our classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cabruca.errors import DataError, closest, did_you_mean
from cabruca.structures import IGNORE

IGNORED = "ignore"
"""The class name that drops a category."""


@dataclass(frozen=True)
class Meaning:
    """What a category is to us: instance class (0 = none) and semantic id (None = has none)."""

    label: int
    semantic: int | None


def class_meanings(
    categories: Mapping[int, str],
    category_map: Mapping[str, str],
    instance_classes: Sequence[str],
    semantic_classes: Sequence[str],
    where: str,
) -> dict[int, Meaning | None]:
    """Category id -> what it means; None for an ignored one. A name that is in both lists is a crown that also paints.

    Raises:
        DataError: categories without a class (all of them are listed), or a map to a class that does not exist.
    """
    known = [*dict.fromkeys([*instance_classes, *semantic_classes]), IGNORED]
    for category, target in category_map.items():
        if target not in known:
            hint = did_you_mean(target, known) or f"; use one of {', '.join(known)}"
            raise DataError(f"data.category_map sends '{category}' to '{target}', which is no class{hint}")
    unmapped = sorted({n for n in categories.values() if n not in category_map and n not in known})
    if unmapped:
        target = closest(unmapped[0], known) or known[0]
        example = f"data.category_map: {{{unmapped[0]}: {target}}}"
        stray = [k for k in category_map if k not in categories.values()]
        near = [f"'{k}', which is no category; did you mean '{n}'?" for n in unmapped if (k := closest(n, stray))]
        raise DataError(
            f"{where}: categories without a class: {', '.join(unmapped)} (classes: {', '.join(known)}); "
            f"map each, for example {example} or --map {unmapped[0]}=ignore"
            + "".join(f"; data.category_map has {one}" for one in near)
        )

    def meaning(name: str) -> Meaning | None:
        target = category_map.get(name, name)
        if target == IGNORED:
            return None
        label = list(instance_classes).index(target) + 1 if target in instance_classes else 0
        return Meaning(label, list(semantic_classes).index(target) if target in semantic_classes else None)

    return {ident: meaning(name) for ident, name in categories.items()}


def semantic_or_ignored(meaning: Meaning | None) -> int:
    """The id that a category's pixels get: 255 for an ignored category, or for a crown class without semantic id."""
    return IGNORE if meaning is None or meaning.semantic is None else meaning.semantic
