"""Pictures of one validation's findings: curves, confusion, counts, diameters. They draw; nothing is measured here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cabruca.colours import colours_of
from cabruca.findings import RECALL, SCORES, Findings, Floats, Ints, rules
from cabruca.tracking.canvas import ACCENT, FADED, INK, head, headline, new_figure, note, nothing, png

WIDE = (6.6, 4.8)
"""Inches of a figure of one panel."""

MANY_POINTS = 5000
"""Pairs that are drawn at most, every n-th of more; the numbers beside them are of all."""

KINDS = {"segm": "masks", "bbox": "boxes"}


def pr_curve(found: Findings, title: str) -> bytes:
    """Precision over recall of each class at an IoU of 0.5; the area under a line is the class's mAP_50."""
    figure, (axes,) = new_figure(1, size=WIDE, bottom=0.75)
    headline(figure, title)
    note(figure, rules(found)["curves"])
    head(axes, "precision and recall at IoU 0.5", "recall", "precision")
    _no_crowns(axes, found)
    for curve in found.curves:
        label = f"{curve.name}, {KINDS[curve.kind]}: AP {curve.precision.mean():.3f} ({_crowns(curve.truths)})"
        axes.plot(RECALL, curve.precision, color=_color(found, curve.name), linewidth=2, label=label)
    _finish(axes, found, "lower left")
    return png(figure)


def f1_curve(found: Findings, title: str) -> bytes:
    """F1 of each class over the score from which crowns count; dots: the best; dashed: the score that is used."""
    figure, (axes,) = new_figure(1, size=WIDE, bottom=0.75)
    headline(figure, title)
    note(figure, rules(found)["curves"])
    head(axes, "F1 at IoU 0.5", "crowns count from this score on", "F1")
    _no_crowns(axes, found)
    for curve in found.curves:
        score, best = curve.best
        told = f"best {best:.3f} at {score:.2f}" if best > 0 else "none is right"
        color = _color(found, curve.name)
        axes.plot(SCORES, curve.f1, color=color, linewidth=2, label=f"{curve.name}, {KINDS[curve.kind]}: {told}")
        if best > 0:
            axes.plot([score], [best], "o", color=color, markersize=6)
    for score, color in _used(found):
        axes.axvline(score, color=color, linewidth=1, linestyle="--")
        axes.text(score + 0.01, 1.0, f"used: {score:g}", fontsize="x-small", color=color)
    _finish(axes, found, "lower left")
    return png(figure)


def _used(found: Findings) -> list[tuple[float, str]]:
    """The scores from which crowns count, each in its colour: one for all, or one a class that has a curve."""
    if not isinstance(found.score_threshold, tuple):
        return [(found.score_threshold, ACCENT)]
    by_name = dict(zip(found.classes, found.score_threshold[1:], strict=True))
    return [(by_name[curve.name], _color(found, curve.name)) for curve in found.curves]


def confusion(found: Findings, title: str) -> bytes:
    """Crowns, truth by row, with what was missed and what is not there; beside it the pixels of land cover."""
    tables: list[Callable[[Any], None]] = []
    if found.confusion is not None:
        names = [_short(name) for name in found.classes]
        crowns, rows, columns = found.confusion, [*names, "nothing there"], [*names, "missed"]
        tables.append(lambda axes: _table(axes, crowns, rows, columns, "crowns"))
    if found.pixels is not None:
        pixels, covers = found.pixels, [_short(name) for name in found.covers]
        tables.append(lambda axes: _table(axes, pixels, covers, covers, "land cover, % of the row", percent=True))
    figure, panels = new_figure(max(1, len(tables)), size=(6.4, 5.0), left=1.4, bottom=1.0)
    headline(figure, title)
    if found.confusion is not None:
        note(figure, rules(found)["confusion"])
    if not tables:
        head(panels[0], "confusion")
        nothing(panels[0], "no pairs (validation.calculate_agroforestry_metrics)\nand no land cover in the truth")
    for axes, table in zip(panels, tables, strict=False):
        table(axes)
    return png(figure)


def count_scatter(found: Findings, title: str) -> bytes:
    """Crowns found over crowns in the truth, a point a picture and class."""
    figure, (axes,) = new_figure(1, size=WIDE, bottom=0.75)
    headline(figure, title)
    note(figure, rules(found)["counts"])
    head(axes, f"crowns of each picture ({len(found.pictures)})", "in the truth", "found")
    _identity(axes, found.counts)
    for k, name in enumerate(found.classes if found.counts.any() else ()):
        pairs = found.counts[:, k]
        if pairs.any():
            true, seen = pairs.sum(axis=0).tolist()
            label = f"{name}: {seen} of {true}, off by {np.abs(pairs[:, 1] - pairs[:, 0]).mean():.1f} a picture"
            axes.scatter(
                *pairs.T, s=34, color=_color(found, name), alpha=0.75, edgecolor="white", linewidth=0.5, label=label
            )
    if found.counts.any():
        axes.legend(fontsize="small", frameon=False, labelcolor=INK, loc="upper left")
    else:
        nothing(axes, "no crowns in the truth, and none found")
    return png(figure)


def diameter_scatter(found: Findings, title: str) -> bytes:
    """Crown diameters found over those of the truth, a point a pair."""
    figure, (axes,) = new_figure(1, size=WIDE, bottom=0.75)
    headline(figure, title)
    note(figure, rules(found)["diameters"])
    pairs, unit = found.diameters, found.unit
    head(axes, f"crown diameter of {len(pairs)} pairs", f"in the truth, {unit}", f"found, {unit}")
    _identity(axes, pairs)
    step = max(1, -(-len(pairs) // MANY_POINTS))
    for k, name in enumerate(found.classes):
        own = pairs[found.labels == k + 1]
        if len(own):
            off = own[:, 1] - own[:, 0]
            label = f"{name}: {len(own)} pairs, off by {np.abs(off).mean():.2f} {unit}, bias {off.mean():+.2f} {unit}"
            axes.scatter(*own[::step].T, s=16, color=_color(found, name), alpha=0.5, linewidth=0, label=label)
    if len(pairs):
        axes.legend(fontsize="small", frameon=False, labelcolor=INK, loc="upper left")
    else:
        nothing(axes, "no pair of a found and a true crown")
    return png(figure)


CHARTS: dict[str, Callable[[Findings, str], bytes]] = {
    "pr_curve": pr_curve,
    "f1_curve": f1_curve,
    "confusion": confusion,
    "count_scatter": count_scatter,
    "diameter_scatter": diameter_scatter,
}
"""File stem -> who draws it, of the findings and a line above it, as a PNG."""


def _color(found: Findings, name: str) -> str:
    return colours_of(found.classes)[name]


def _crowns(count: int) -> str:
    return "1 crown" if count == 1 else f"{count} crowns"


def _short(name: str) -> str:
    return name.removesuffix("_tree").replace("_", " ")


def _no_crowns(axes: Any, found: Findings) -> None:
    if not found.curves:
        nothing(axes, "no crowns in the truth, or no instance head")


def _finish(axes: Any, found: Findings, corner: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.04))
    if found.curves:
        axes.legend(fontsize="small", frameon=True, framealpha=0.9, edgecolor="none", labelcolor=INK, loc=corner)


def _identity(axes: Any, pairs: Floats | Ints) -> None:
    """Where found equals true, from 0 to just beyond the largest."""
    most = float(pairs.max()) if pairs.size else 0.0
    most = 1.08 * most if most > 0 else 1.0
    axes.plot([0, most], [0, most], color=FADED, linewidth=1, linestyle="--", zorder=1)
    axes.set(xlim=(0 - most / 50, most), ylim=(0 - most / 50, most))


def _table(axes: Any, counts: Ints, rows: list[str], columns: list[str], title: str, *, percent: bool = False) -> None:
    """Numbers in squares, shaded by their share of the row; of crowns, the row of what is not there, which has no right
    square, by its share of the largest row."""
    head(axes, title, "found", "truth")
    rows_sum = counts.sum(axis=1, keepdims=True)
    if not percent:
        rows_sum[-1] = rows_sum.max()
    share = counts / np.maximum(rows_sum, 1)
    axes.imshow(share, cmap="YlGn", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    slanted = max(map(len, columns)) * len(columns) > 48
    axes.set_xticks(range(len(columns)), columns, rotation=25 if slanted else 0, ha="right" if slanted else "center")
    axes.set_yticks(range(len(rows)), rows)
    for (row, column), count in np.ndenumerate(counts):
        if row == column == len(counts) - 1 and not percent:
            continue  # nothing there and nothing found: that is not counted
        if percent and not counts[row].any():
            continue
        text = f"{100 * share[row, column]:.1f}" if percent else f"{count}"
        dark = share[row, column] > 0.6
        axes.text(column, row, text, ha="center", va="center", fontsize="small", color="white" if dark else INK)
