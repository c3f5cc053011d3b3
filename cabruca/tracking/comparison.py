"""Runs side by side: their metrics at the best and at the last epoch, and where their configurations differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from cabruca.tracking.runs import Story

UNTOLD = ("experiment_name", "output_dir")
"""Keys that differ between any two runs."""

SHOWN = ("train/*loss*", "val/*", "time/images_per_s", "memory/*")
"""Metrics that are compared when none are asked for."""


@dataclass(frozen=True)
class Comparison:
    """Two runs or more.

    Attributes:
        names: of the runs. epochs: completed by each. best_epoch: of each by its own monitored metric, or None.
        metrics: name -> for each run (value at its best epoch, value at its last epoch), None where unknown.
        settings: dotted key -> value of each run, only where they are not all equal.
    """

    names: tuple[str, ...]
    epochs: tuple[int, ...]
    best_epoch: tuple[int | None, ...]
    metrics: Mapping[str, tuple[tuple[float | None, float | None], ...]]
    settings: Mapping[str, tuple[Any, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers: `{runs: [...], metrics: {name: {best, last}}, settings: {key: [...]}}`."""
        runs = zip(self.names, self.epochs, self.best_epoch, strict=True)
        return {
            "runs": [{"name": name, "epochs": epochs, "best_epoch": best} for name, epochs, best in runs],
            "metrics": {
                name: {"best": [best for best, _ in row], "last": [last for _, last in row]}
                for name, row in self.metrics.items()
            },
            "settings": {key: list(values) for key, values in self.settings.items()},
        }


def compare(stories: Sequence[Story], metrics: Sequence[str] = ()) -> Comparison:
    """Lay runs side by side. All numbers of a run's best column are of one epoch: that of its monitored metric.

    Args:
        metrics: globs over metric names; none: `SHOWN`.
    """
    names = dict.fromkeys(name for story in stories for name in story.history)
    wanted = [name for name in names if any(fnmatchcase(name, glob) for glob in metrics or SHOWN)]
    rows = {name: tuple((s.value(name, s.best), s.value(name, -1)) for s in stories) for name in wanted}
    keys = dict.fromkeys(key for story in stories for key in story.settings)
    values = {key: tuple(story.settings.get(key) for story in stories) for key in keys if key not in UNTOLD}
    return Comparison(
        names=tuple(story.name for story in stories),
        epochs=tuple(int(story.history["epoch"][-1]) for story in stories),
        best_epoch=tuple(None if s.best is None else int(s.history["epoch"][s.best]) for s in stories),
        metrics={name: row for name, row in rows.items() if any(v is not None for pair in row for v in pair)},
        settings={key: row for key, row in values.items() if any(value != row[0] for value in row)},
    )
