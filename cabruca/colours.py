"""The colour of each crown class, the same in every picture, chart, map and page. A leaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CLASS_COLOURS = ("#e69500", "#1590cc", "#cc4b8f", "#5f9e30", "#8468d8", "#a0673f")
"""Cacao, shade, then others; they stand out from leaves, and from a white or a dark page."""

_FIRST = ("cacao", "shade")
"""What the names begin with that have the first colours, wherever they stand."""


def colours_of(classes: Sequence[str]) -> Mapping[str, str]:
    """Class -> its colour, `#rrggbb`, in the order given; it does not depend on that order.

    Args:
        classes: names of the crown classes, with or without `_tree`. More than there are colours share some.
    """
    left = sorted(classes)
    found: dict[str, str] = {}
    for word, colour in zip(_FIRST, CLASS_COLOURS, strict=False):
        own = next((name for name in left if name.split("_", 1)[0] == word), None)
        if own is not None:
            left.remove(own)
            found[own] = colour
    rest = CLASS_COLOURS[len(_FIRST) :]
    found |= {name: rest[k % len(rest)] for k, name in enumerate(left)}
    return {name: found[name] for name in classes}


def rgb_of(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` as three numbers from 0 to 255."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
