"""Runs seen from outside: found by path or name, read without unpickling anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.config.keys import leaves
from cabruca.config.load import read_raw
from cabruca.config.views import plain
from cabruca.errors import ConfigError, RunError, did_you_mean
from cabruca.tracking.run_dir import RunDir


def find_run(run: str | Path, output_dir: str | Path = "outputs") -> RunDir:
    """The run in the folder `run`, or of that name below `output_dir`; a checkpoint leads to its own run.

    Raises:
        RunError: there is no run; names the one that is spelled alike.
    """
    path = Path(run)
    if path.suffix == ".pth":
        owner = RunDir.of_checkpoint(path)
        if owner is None:
            raise RunError(f"{path} lies in no run folder (<run>/checkpoints/); give the run's folder or name")
        return owner
    for folder in (path, Path(output_dir) / path):
        if RunDir(folder).holds_run:
            return RunDir(folder)
    known = names_of_runs(output_dir)
    listed = f"; there are {', '.join(known[:8])}" if known else "; give the path of a run folder, or --output-dir"
    raise RunError(f"'{run}' is no run folder and no run in {output_dir}{did_you_mean(str(run), known) or listed}")


def names_of_runs(output_dir: str | Path) -> list[str]:
    """Names of the runs right below a folder, in order."""
    folder = Path(output_dir)
    if not folder.is_dir():
        return []
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and RunDir(child).holds_run)


@dataclass(frozen=True)
class Story:
    """What a run's files say of it.

    Attributes:
        name: of the folder. settings: dotted key -> value, the defaults of today where the file is silent.
        history: metric -> one value an epoch, None where it has none; `epoch` among the names.
        best: index into those lists of the best epoch by the run's own monitored metric, None where it has none.
        monitor: the monitored metric.
    """

    name: str
    settings: Mapping[str, Any]
    history: Mapping[str, Sequence[Any]]
    best: int | None
    monitor: str

    def value(self, metric: str, place: int | None) -> float | None:
        """A metric at an epoch's index; None where there is no such number."""
        values = self.history.get(metric)
        return None if place is None or not values else values[place]


def read_story(run: RunDir) -> Story:
    """Settings and history of a run, also of one that is still going on.

    Raises:
        RunError: it has no configuration or no completed epoch yet.
    """
    settings = read_settings(run)
    try:
        history = json.loads(run.history.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"run {run.path} has no completed epoch to compare (training_history.json); wait for one"
        ) from error
    epochs = history.get("epoch") if isinstance(history, dict) else None
    if not isinstance(epochs, list) or not epochs:
        raise RunError(f"run {run.path} has no completed epoch to compare (training_history.json); wait for one")
    monitor = str(settings["training.monitor_metric"])
    best = best_place(history.get(monitor) or [], minimize=bool(settings["training.minimize_metric"]))
    return Story(run.name, settings, history, best, monitor)


def read_settings(run: RunDir) -> dict[str, Any]:
    """Dotted key -> value of a run's config.yaml; a key of another release is kept as it stands.

    Raises:
        RunError: there is none that can be read.
    """
    try:
        raw = read_raw(run.config_yaml)
    except ConfigError as error:
        raise RunError(f"run {run.path} has no configuration that can be read ({error})") from error
    return {**{key: plain(value) for key, value in leaves()}, **_dotted(raw, {key for key, _ in leaves()})}


def _dotted(values: Mapping[str, Any], known: set[str], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in known:
            out.update(_dotted(value, known, f"{name}."))
        else:
            out[name] = value
    return out


def best_place(values: Sequence[Any], *, minimize: bool) -> int | None:
    """Index of the best number, the first of equal ones; None where there is none."""
    found = [(v, i) for i, v in enumerate(values) if isinstance(v, int | float) and math.isfinite(v)]
    if not found:
        return None
    best = min(v for v, _ in found) if minimize else max(v for v, _ in found)
    return next(i for v, i in found if v == best)
