"""Runs side by side: which can be compared, which value is the better one, what parallel coordinates show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cabruca.errors import RunError
from cabruca.monitor.curves import Curve, smooth
from cabruca.monitor.places import run_at
from cabruca.tracking.comparison import UNTOLD
from cabruca.tracking.runs import Story, read_story
from cabruca.tracking.study_tables import short_names

SMALLER_IS_BETTER = ("*loss*", "*error*", "*_rmse*", "*_mae*")
LARGER_IS_BETTER = ("*mAP*", "*AP_*", "*iou*", "*mIoU*", "*precision*", "*recall*", "*f1*", "*accuracy*", "*score*")

MOST_SETTINGS, MOST_NAMED = 8, 15
"""Of parallel coordinates: settings that have an axis, and runs up to which there is one of their names."""


def stories_of(outputs: Path, names: Sequence[str]) -> tuple[list[Story], list[str]]:
    """Those that have a completed epoch, each under its name below `outputs`; and lines on the others."""
    found: list[Story] = []
    left_out: list[str] = []
    for name in names:
        try:
            story = read_story(run_at(outputs, name))
        except RunError as error:
            left_out.append(str(error))
        else:
            found.append(Story(name, story.settings, story.history, story.best, story.monitor))
    return found, left_out


def metrics_of(stories: Sequence[Story]) -> list[str]:
    """Names that any of them has, those they are monitored by first."""
    own = [story.monitor for story in stories]
    names = [name for story in stories for name in story.history if name not in ("epoch", "step")]
    return [name for name in dict.fromkeys([*own, *names]) if name in set(names)]


def curves_of(stories: Sequence[Story], metric: str, smoothing: float = 0.0) -> list[Curve]:
    """The metric at the end of each epoch, a line a run that has it."""
    import numpy as np

    out = []
    for story in stories:
        values = story.history.get(metric)
        if values is not None:
            pairs = zip(story.history["epoch"], values, strict=False)
            known = [(x, y) for x, y in pairs if isinstance(x, int) and isinstance(y, int | float)]
            x = np.array([one for one, _ in known], dtype=float)
            y = np.array([one for _, one in known], dtype=float)
            out.append(Curve(story.name, x, smooth(y, smoothing)))
    return out


def best_places(metric: str, values: Sequence[float | None], *, minimize: bool | None = None) -> list[int]:
    """Indices of the best values; none where nobody knows which are better, or all are equal.

    Args:
        minimize: what the configuration says of its monitored metric; None: by the name.
    """
    known = [value for value in values if value is not None]
    if minimize is None:
        smaller = any(fnmatchcase(metric, glob) for glob in SMALLER_IS_BETTER)
        larger = any(fnmatchcase(metric, glob) for glob in LARGER_IS_BETTER)
        if smaller == larger:
            return []
        minimize = smaller
    if len(set(known)) < 2:
        return []
    best = min(known) if minimize else max(known)
    return [i for i, value in enumerate(values) if value == best]


def direction_of(stories: Sequence[Story], metric: str) -> bool | None:
    """Whether smaller is better by the configuration of those that are monitored by the metric; None: none is."""
    said = [bool(s.settings.get("training.minimize_metric")) for s in stories if s.monitor == metric]
    return said[0] if said else None


def coordinates_of(stories: Sequence[Story], metric: str, most: int = MOST_SETTINGS) -> Mapping[str, list[Any]]:
    """Columns of a figure of parallel coordinates: settings that differ, then the metric at the run's best epoch.

    Before them, the runs by name, where they are few enough to be told apart.
    """
    keys = dict.fromkeys(key for story in stories for key in story.settings if key not in UNTOLD)
    rows = {key: [story.settings.get(key) for story in stories] for key in keys}
    differ = [key for key, values in rows.items() if any(value != values[0] for value in values)][:most]
    columns: dict[str, list[Any]] = {"run": [story.name for story in stories]} if len(stories) <= MOST_NAMED else {}
    columns |= {
        short: ["null" if value is None else value for value in rows[key]] for key, short in short_names(differ).items()
    }
    columns[metric] = [story.value(metric, story.best) for story in stories]
    return columns
