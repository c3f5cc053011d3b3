"""plots/results.png: how a run goes, epoch by epoch, on one sheet."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cabruca.colours import colours_of
from cabruca.config.schema import Config
from cabruca.tracking.canvas import ACCENT, INK, Sparingly, head, headline, line_color, logarithmic, new_figure, png
from cabruca.tracking.files import write_atomic
from cabruca.tracking.history import row_of
from cabruca.tracking.run_dir import RunDir
from cabruca.train.protocols import BaseCallback, Record, RunInfo, TrainResult

Columns = Mapping[str, Sequence[Any]]

SCORES = ("mIoU", "canopy_iou", "total_count_accuracy", "species_accuracy", "shade_distribution_score")
"""Of land cover and agroforestry, all between 0 and 1."""

MANY = 30
"""Epochs from which on the points of a line are left out."""


class ResultsPlot(BaseCallback):
    """Draws after each epoch, or after some where epochs are shorter than forty drawings, and when the run ends.

    A resumed run shows all of its epochs: what there was before is read from training_history.json.
    """

    def __init__(self, run_dir: RunDir, config: Config) -> None:
        self._run_dir = run_dir
        self._monitor, self._minimize = config.training.monitor_metric, config.training.minimize_metric
        self._rows: dict[str, list[Any]] = {"epoch": []}
        self._sparingly = Sparingly()

    def on_start(self, info: RunInfo) -> None:
        if info.resumed_epoch and self._run_dir.history.is_file():
            self._rows = json.loads(self._run_dir.history.read_text(encoding="utf-8"))

    def on_epoch(self, record: Record) -> None:
        row = row_of(record)
        length = len(self._rows["epoch"])
        for name in row.keys() | self._rows.keys():
            self._rows.setdefault(name, [None] * length).append(row.get(name))
        if self._sparingly.due():
            with self._sparingly:
                self._draw()

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if self._rows["epoch"]:
            self._draw()

    def _draw(self) -> None:
        self._run_dir.plots.mkdir(parents=True, exist_ok=True)
        picture = draw(self._rows, self._monitor, minimize=self._minimize, title=self._run_dir.name)
        write_atomic(self._run_dir.plots / "results.png", picture, durable=False)


def draw(history: Columns, monitor: str, *, minimize: bool = False, title: str = "") -> bytes:
    """A PNG of panels: losses, losses of the heads, average precision, canopy and counts, learning rates, gradient
    norm, time. What the history does not know has no panel.

    Args:
        history: `{name: [value an epoch]}`, None where there is none.
        monitor: name of the monitored metric; its best epoch is marked. minimize: smaller is better.
    """
    panels = [panel for panel in (make(history, monitor) for make in _PANELS) if panel is not None]
    figure, found = new_figure(max(1, len(panels)))
    best = _best(history, monitor, minimize=minimize)
    for axes, panel in zip(found, panels, strict=False):
        panel(axes)
        axes.set_xlabel("epoch", fontsize="small", color=INK)
        _whole_epochs(axes, history["epoch"])
        if best is not None:
            axes.axvline(best[0], color=ACCENT, linewidth=0.9, linestyle=":", zorder=0)
    told = f"best {monitor} {best[1]:.4g} after epoch {best[0]} (dotted)" if best else f"{monitor}: no value yet"
    headline(figure, "   ".join(part for part in (title, told) if part))
    return png(figure)


def _best(history: Columns, monitor: str, *, minimize: bool) -> tuple[int, float] | None:
    known = [(e, v) for e, v in zip(history["epoch"], history.get(monitor, ()), strict=False) if _finite(v)]
    sign = 1 if minimize else -1
    return min(known, key=lambda one: sign * one[1]) if known else None


Panel = Callable[[Any], None]


def _losses(history: Columns, monitor: str) -> Panel | None:
    names = {"train/total_loss": ("training", INK), "val/total_loss": ("validation", ACCENT)}
    return _lines(history, {n: (*names[n], 2.0) for n in _known(history, names)}, "loss", log=True)


def _parts(history: Columns, monitor: str) -> Panel | None:
    """Training drawn through, validation dashed in the same colour."""
    heads = _known(history, [n for n in history if n.startswith("train/loss_") and n.count("/") == 1])
    lines = {n: (n.removeprefix("train/loss_"), line_color(k), 1.6) for k, n in enumerate(heads)}
    dashed = {f"val/{n.removeprefix('train/')}": line_color(k) for k, n in enumerate(heads)}
    return _lines(history, lines, "loss of each head (dashed: validation)", log=True, dashed=dashed)


def _precision(history: Columns, monitor: str) -> Panel | None:
    names = ["val/mAP_50", "val/mAP", "val/mAP_75"]
    lines = {n: (n.removeprefix("val/"), (INK, line_color(0), line_color(1))[k], 1.6) for k, n in enumerate(names)}
    return _lines(history, _shown(history, lines, monitor, "mAP"), "average precision", top=1.0)


def _scores(history: Columns, monitor: str) -> Panel | None:
    lines = {f"val/{n}": (n.replace("_", " "), line_color(k), 1.6) for k, n in enumerate(SCORES)}
    return _lines(history, _shown(history, lines, monitor, ""), "land cover and agroforestry", top=1.0)


def _diameters(history: Columns, monitor: str) -> Panel | None:
    unit = "m" if _known(history, ["val/crown_diameter_mae_m"]) else "px"
    words = {"crown_diameter_mae": "mean error", "crown_diameter_bias": "bias", "crown_head_diameter_mae": "crown head"}
    lines = {f"val/{n}_{unit}": (word, line_color(k), 1.6) for k, (n, word) in enumerate(words.items())}
    return _lines(history, {n: lines[n] for n in _known(history, lines)}, f"crown diameter, {unit}")


def _counts(history: Columns, monitor: str) -> Panel | None:
    true = _known(history, [n for n in history if n.startswith("val/") and n.endswith("_count_true")])
    names = [n.removesuffix("_true") for n in sorted(true) if not n.endswith("total_count_true")]
    shown = {n: n[4:].removesuffix("_count") for n in names}
    colours = colours_of(list(shown.values()))
    lines = {n: (name, colours[name], 1.6) for n, name in shown.items()}
    dashed = {f"{n}_true": colours[name] for n, name in shown.items()}
    return _lines(history, lines, "crowns counted (dashed: truth)", dashed=dashed)


def _rates(history: Columns, monitor: str) -> Panel | None:
    names = _known(history, [n for n in history if n.startswith("lr/")])
    lines = {n: (n.removeprefix("lr/"), line_color(k), 1.6) for k, n in enumerate(names)}
    return _lines(history, lines, "learning rate", log=True)


def _gradient(history: Columns, monitor: str) -> Panel | None:
    names = _known(history, ["train/grad_norm"])
    return _lines(history, dict.fromkeys(names, ("gradient norm", INK, 1.6)), "gradient norm", log=True)


def _time(history: Columns, monitor: str) -> Panel | None:
    words = {"time/epoch_s": ("epoch", INK, 1.6), "time/train_s": ("training alone", line_color(1), 1.6)}
    return _lines(history, {n: words[n] for n in _known(history, words)}, "time, s", bottom=0.0)


_PANELS = (_losses, _parts, _precision, _scores, _diameters, _counts, _rates, _gradient, _time)


def _shown(
    history: Columns, lines: Mapping[str, tuple[str, str, float]], monitor: str, kind: str
) -> dict[str, tuple[str, str, float]]:
    """Those that are known; the monitored metric thick, and added where it belongs to this kind."""
    own = {n: lines[n] for n in _known(history, lines)}
    if kind and kind in monitor and monitor not in own and _known(history, [monitor]):
        own[monitor] = (monitor.removeprefix("val/"), line_color(4), 1.6)
    return {n: (label, color, 2.6 if n == monitor else width) for n, (label, color, width) in own.items()}


def _lines(
    history: Columns,
    lines: Mapping[str, tuple[str, str, float]],
    title: str,
    *,
    log: bool = False,
    top: float | None = None,
    bottom: float | None = None,
    dashed: Mapping[str, str] | None = None,
) -> Panel | None:
    """A panel of lines: name -> label, colour, width; None without any.

    Args:
        log: logarithmic where the values span a factor of 20. top: of a score, from 0. dashed: name -> colour.
    """
    if not lines:
        return None

    def panel(axes: Any) -> None:
        head(axes, title)
        seen: list[float] = []
        for name, color in _behind(history, dashed or {}):
            epochs, values = _series(history, name)
            axes.plot(
                epochs,
                values,
                color=color,
                linewidth=1.2,
                linestyle="--",
                alpha=0.7,
                marker=_marker(values),
                markersize=2,
            )
            seen += values
        for name, (label, color, width) in lines.items():
            epochs, values = _series(history, name)
            axes.plot(epochs, values, color=color, linewidth=width, label=label, marker=_marker(values), markersize=3.5)
            seen += values
        if log and min(seen) > 0 and max(seen) > 20 * min(seen):
            logarithmic(axes)
        elif log and 0 < max(seen) < 0.01:
            _in_tens(axes, title)
        if top is not None:
            axes.set_ylim(-0.02, max(top, *seen) + 0.02)
        if bottom is not None:
            axes.set_ylim(bottom=bottom)
        if len(lines) > 1 or dashed:
            axes.legend(fontsize="x-small", framealpha=0.7, edgecolor="none", labelcolor=INK)

    return panel


def _in_tens(axes: Any, title: str) -> None:
    """Small numbers of an axis as multiples of a power of ten, which the title names; they stay short."""
    ticks = list(axes.get_yticks())
    power = math.floor(math.log10(max(ticks)))
    digits = _digits([tick / 10**power for tick in ticks])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 10**power:.{digits}g}")
    head(axes, f"{title}, in 1e{power}")


def _digits(ticks: Sequence[float]) -> int:
    """Significant digits, 2 or more, that tell the labels of an axis apart."""
    return next((d for d in range(2, 9) if len({f"{tick:.{d}g}" for tick in ticks}) == len(ticks)), 9)


def _behind(history: Columns, dashed: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, dashed[name]) for name in _known(history, dashed)]


def _series(history: Columns, name: str) -> tuple[list[int], list[float]]:
    """Epochs and values where the value is known: validations may be epochs apart."""
    pairs = [(e, v) for e, v in zip(history["epoch"], history[name], strict=True) if _finite(v)]
    return [e for e, _ in pairs], [v for _, v in pairs]


def _known(history: Columns, names: Any) -> list[str]:
    return [name for name in names if any(map(_finite, history.get(name, ())))]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _marker(values: Sequence[float]) -> str | None:
    return "o" if len(values) < MANY else None


def _whole_epochs(axes: Any, epochs: Sequence[int]) -> None:
    """The same axis in every panel, also where little is known."""
    from matplotlib.ticker import MaxNLocator

    if epochs:
        gap = 0.5 + 0.02 * (epochs[-1] - epochs[0])
        axes.set_xlim(epochs[0] - gap, epochs[-1] + gap)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
