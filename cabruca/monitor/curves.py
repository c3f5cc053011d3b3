"""Curves of a run: which metrics belong together, smoothed, thinned to what a screen can show, the best marked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from cabruca.monitor.rows import Floats, Rows

Axis = Literal["epoch", "step", "time"]

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Losses", ("train/*loss*", "val/*loss*")),
    ("Detection", ("val/*mAP*", "val/*AP_*", "val/*precision*", "val/*recall*", "val/*f1*", "val/*count*")),
    ("Canopy", ("val/*canopy*", "val/*mIoU*", "val/*iou*", "val/*crown*", "val/*cover*")),
    ("Shade", ("val/*shade*",)),
    ("Learning rate", ("lr/*",)),
    ("Gradient norm", ("train/grad_norm*", "train/skipped_steps")),
    ("Other metrics", ("val/*", "train/*", "test/*")),
)
"""Title of a chart -> globs of the metrics on it; a metric goes to the first that takes it."""

SYSTEM: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Pictures a second", ("time/images_per_s",)),
    ("CPU, percent", ("system/cpu_percent", "system/process_cpu_percent")),
    ("Memory, MB", ("system/process_rss_mb", "memory/*_mb")),
    ("Memory of the machine, percent", ("system/ram_percent",)),
    ("GPU, percent", ("system/gpu_percent",)),
    ("GPU memory, MB", ("system/gpu_memory_mb",)),
    ("Disk, MB a second", ("system/disk_*_mb_per_s",)),
    ("Disk", ("system/disk_*",)),
    ("Time, seconds an epoch", ("time/*_s",)),
    ("Share of time waiting for data", ("time/data_wait_share",)),
)
"""The same of what the machine did."""

MOST_POINTS = 1_500
"""Of a curve on the screen."""


@dataclass(frozen=True)
class Curve:
    """One line: `[points]` each, x in epochs, steps, or seconds since the run began."""

    name: str
    x: Floats
    y: Floats


def grouped(names: Iterable[str], groups: Sequence[tuple[str, tuple[str, ...]]]) -> dict[str, list[str]]:
    """Title -> metrics of the group, in order; empty groups are left out, and so is what no group takes.

    A share of truth (`val/x_true`) is constant for a run and stands beside the metric it is the truth of.
    """
    out: dict[str, list[str]] = {title: [] for title, _ in groups}
    for name in names:
        title = next((title for title, globs in groups if any(fnmatchcase(name, glob) for glob in globs)), None)
        if title is not None:
            out[title].append(name)
    return {title: found for title, found in out.items() if found}


def curve(rows: Rows, name: str, axis: Axis = "epoch", *, smoothing: float = 0.0, most: int = MOST_POINTS) -> Curve:
    """A metric over the run: of steps where it is measured in them as often as at ends of epochs, else of those.

    Never both in one line: at its end an epoch gives the mean over all of its steps.

    Args:
        smoothing: 0 (as measured) to below 1, as `smooth`. most: points that are kept.
    """
    places, values = rows.column(name, epochs=False)
    ends = rows.column(name, epochs=True)
    if len(places) < len(ends[0]):
        places, values = ends
    x = axis_of(rows, axis)[places]
    return Curve(name, *thin(x, smooth(values, smoothing), most))


def axis_of(rows: Rows, axis: Axis) -> Floats:
    """`[rows]`: epochs, steps, or seconds since the first row."""
    if axis == "epoch":
        return rows.epoch_places()
    values = rows.own(axis)
    return values - values[0] if axis == "time" and len(values) else values


def smooth(values: Floats, weight: float) -> Floats:
    """Exponential moving average with its beginning made right (Kingma and Ba 2015, section 3); NaN are passed over.

    Args:
        weight: of what was before, 0 <= weight < 1; 0 changes nothing.
    """
    if weight <= 0 or len(values) == 0:
        return values
    out, average, share = np.full(len(values), np.nan), 0.0, 0.0
    for i, value in enumerate(values.tolist()):
        if not math.isnan(value):
            average = weight * average + (1 - weight) * value
            share = weight * share + (1 - weight)
            out[i] = average / share
    return out


def thin(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats]:
    """At most about `most` points: of every stretch its lowest and its highest, so that no spike is lost."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), max(most // 2, 1) + 1).astype(int)
    kept: list[int] = [0, len(x) - 1]
    for begin, end in pairwise(edges.tolist()):
        part = y[begin:end]
        if np.isfinite(part).any():
            kept += [begin + int(np.nanargmin(part)), begin + int(np.nanargmax(part))]
    places: npt.NDArray[np.int64] = np.unique(np.array(kept, dtype=np.int64))
    return x[places], y[places]


def best_point(rows: Rows, name: str, axis: Axis, *, minimize: bool) -> tuple[float, float] | None:
    """Where the monitored metric was best at the end of an epoch: (x, value); the first of equal ones."""
    places, values = rows.column(name, epochs=True)
    if not np.isfinite(values).any():
        return None
    at = int(np.nanargmin(values) if minimize else np.nanargmax(values))
    return float(axis_of(rows, axis)[places[at]]), float(values[at])
