"""How much two findings of crowns overlap: by their masks, by their boxes where one has no mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cabruca.predict.found import Box, Found

Rect = tuple[int, int, int, int]
"""x0, y0, x1, y1."""


def overlap_of(a: Box, b: Box) -> Box | None:
    """The rectangle that two rectangles share; None where they share no area."""
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def around(members: Sequence[Found]) -> Box:
    """The rectangle around all findings."""
    x0, y0, x1, y1 = zip(*(m.box for m in members), strict=True)
    return (min(x0), min(y0), max(x1), max(y1))


def agreement(a: Found, b: Found, shared: Box) -> float:
    """IoU of `a` and `b` inside the rectangle `shared`; 0 where neither reaches into it."""
    if a.mask is None or b.mask is None:
        inner_a, inner_b = overlap_of(a.box, shared), overlap_of(b.box, shared)
        if inner_a is None or inner_b is None:
            return 0.0
        common = overlap_of(inner_a, inner_b)
        both = 0.0 if common is None else _area(common)
        return both / (_area(inner_a) + _area(inner_b) - both)
    inner = _whole(shared)
    both = _common(a, b, inner)
    either = _count(a, inner) + _count(b, inner) - both
    return both / either if either else 0.0


def containment(part: Found, whole: Found) -> float:
    """Share of `part` that lies in `whole`."""
    if part.mask is None or whole.mask is None:
        common = overlap_of(part.box, whole.box)
        return 0.0 if common is None else _area(common) / _area(part.box)
    return _common(part, whole, None) / int(part.mask[2].sum())


def union(members: Sequence[Found]) -> Found:
    """All findings together, with the best score."""
    largest = max(members, key=lambda m: (_size(m), -m.window))
    x0, y0, x1, y1 = box = around(members)
    own = replace(largest, score=max(m.score for m in members), box=box)
    if any(m.mask is None for m in members):
        return replace(own, mask=None)
    left, top = int(x0), int(y0)
    canvas = np.zeros((int(y1) - top, int(x1) - left), dtype=np.bool_)
    for m in members:
        assert m.mask is not None
        x, y, pixels = m.mask
        canvas[y - top : y - top + pixels.shape[0], x - left : x - left + pixels.shape[1]] |= pixels
    return replace(own, mask=(left, top, canvas))


def _size(found: Found) -> float:
    return _area(found.box) if found.mask is None else float(found.mask[2].sum())


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _whole(box: Box) -> Rect:
    return (int(box[0]), int(box[1]), int(box[2]), int(box[3]))


def _cut(found: Found, rect: Rect | None) -> tuple[int, int, npt.NDArray[np.bool_]]:
    assert found.mask is not None
    x, y, pixels = found.mask
    if rect is None:
        return x, y, pixels
    x0, y0 = max(x, rect[0]), max(y, rect[1])
    x1, y1 = max(x0, min(x + pixels.shape[1], rect[2])), max(y0, min(y + pixels.shape[0], rect[3]))
    return x0, y0, pixels[y0 - y : y1 - y, x0 - x : x1 - x]


def _count(found: Found, rect: Rect) -> int:
    return int(_cut(found, rect)[2].sum())


def _common(a: Found, b: Found, rect: Rect | None) -> int:
    ax, ay, pa = _cut(a, rect)
    bx, by, pb = _cut(b, rect)
    x0, y0 = max(ax, bx), max(ay, by)
    x1, y1 = min(ax + pa.shape[1], bx + pb.shape[1]), min(ay + pa.shape[0], by + pb.shape[0])
    if x1 <= x0 or y1 <= y0:
        return 0
    return int((pa[y0 - ay : y1 - ay, x0 - ax : x1 - ax] & pb[y0 - by : y1 - by, x0 - bx : x1 - bx]).sum())
