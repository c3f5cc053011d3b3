"""Figures for run folders: one look, no window system, no global state."""

from __future__ import annotations

import io
import math
import time
from typing import Any

from cabruca.colours import CLASS_COLOURS

INK, FADED, ACCENT = "#22302a", "#9aa5a0", "#c1440e"
"""Text and first lines; what stands behind; what is to be seen."""

DPI = 110


def line_color(k: int) -> str:
    """Of line `k`, 0-based, of what is no crown class; those have `colours_of`."""
    return CLASS_COLOURS[k % len(CLASS_COLOURS)]


def new_figure(
    panels: int, *, columns: int = 3, size: tuple[float, float] = (4.4, 3.3), left: float = 0.65, bottom: float = 0.55
) -> tuple[Any, list[Any]]:
    """A matplotlib figure and its `panels` axes, row by row.

    Args:
        size: inches of one panel. left, bottom: of them for labels.
    """
    # not pyplot: it keeps global state and is not safe in the background thread that draws
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(panels, columns)
    rows = math.ceil(panels / columns)
    wide, high = size[0] * columns, size[1] * rows + 0.3
    figure = Figure(figsize=(wide, high))
    FigureCanvasAgg(figure)
    # in inches; matplotlib's own layouts draw everything twice to find them
    edges = {"left": left / wide, "right": 1 - 0.15 / wide, "bottom": bottom / high, "top": 1 - 0.65 / high}
    across, down = left + 0.1, bottom + 0.3
    figure.subplots_adjust(**edges, wspace=across / (size[0] - across), hspace=down / (size[1] - down))
    found = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in found[panels:]:
        axes.set_axis_off()
    for axes in found[:panels]:
        axes.grid(color="#e3e3de", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize="small", colors=INK)
    return figure, found[:panels]


def head(axes: Any, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """Title at the left, labels in small type."""
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold", color=INK)
    axes.set_xlabel(xlabel, fontsize="small", color=INK)
    axes.set_ylabel(ylabel, fontsize="small", color=INK)


def headline(figure: Any, text: str) -> None:
    """One line above all panels; where they are narrower, two, cut between its parts (`   `), and smaller type."""
    high = figure.get_size_inches()[1]
    shown = figure.suptitle(text, fontsize="medium", color=INK, y=1 - 0.12 / high, va="top")
    if not _fits(figure, shown):
        shown.set(text="\n".join(text.rsplit("   ", 1)), y=1 - 0.05 / high, fontsize="small")
    _shrink(figure, shown)


def note(figure: Any, text: str) -> None:
    """One small line below all panels."""
    wide, high = figure.get_size_inches()
    shown = figure.text(0.1 / wide, 0.07 / high, text, fontsize="x-small", color=INK, alpha=0.75, va="bottom")
    _shrink(figure, shown)


def _shrink(figure: Any, text: Any) -> None:
    """Smaller type until all of it is in the figure, down to what can still be read."""
    while not _fits(figure, text) and text.get_fontsize() > 4:
        text.set_fontsize(text.get_fontsize() - 0.5)


def _fits(figure: Any, text: Any) -> bool:
    """Whether all of its width is in the figure."""
    box = text.get_window_extent()
    return bool(box.x0 >= 0 and box.x1 <= figure.bbox.width)


def nothing(axes: Any, text: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", color=FADED, transform=axes.transAxes)


def logarithmic(axes: Any) -> None:
    """An upright axis in powers of ten, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def png(figure: Any) -> bytes:
    """The figure as a PNG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


DRAWERS = 2
"""Of a run: results.png, and the pictures of the best validation. They share what drawing may take."""


class Sparingly:
    """Lets drawing take a small share of a run's time: where epochs last less than a drawing, not each is drawn.

    Args:
        share: of the time since the last drawing ended that the next one may take; of all drawers a twentieth.
    """

    def __init__(self, share: float = 0.05 / DRAWERS) -> None:
        self._share = share
        self._began = self._ended = -math.inf

    def due(self) -> bool:
        """Whether enough time has gone by."""
        took = self._ended - self._began
        return not math.isfinite(took) or time.monotonic() - self._ended >= took / self._share

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._ended = time.monotonic()
