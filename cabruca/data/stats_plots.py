"""Pictures of a set's numbers: classes, crown sizes, crowns a tile, land cover."""

from __future__ import annotations

import io
from typing import Any

from cabruca.colours import colours_of
from cabruca.data.stats_numbers import SetStats


def draw_stats(stats: SetStats) -> bytes:
    """A PNG of four panels; an empty one says that there is nothing of its kind."""
    # not pyplot: it keeps global state, and a window system where there is one
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{stats.name}: {stats.pictures} picture{'' if stats.pictures == 1 else 's'}, {stats.megapixels:.1f} megapixels"
    )
    axes = figure.subplots(2, 2).ravel()
    _classes(axes[0], stats)
    _sizes(axes[1], stats)
    _tiles(axes[2], stats)
    _cover(axes[3], stats)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _classes(axes: Any, stats: SetStats) -> None:
    axes.set(title="crowns of each class", ylabel="crowns")
    counts = [found.crowns for found in stats.classes.values()]
    bars = axes.bar(list(stats.classes), counts, color=list(colours_of(list(stats.classes)).values()))
    axes.bar_label(bars)
    axes.margins(y=0.15)


def _sizes(axes: Any, stats: SetStats) -> None:
    metres = stats.gsd_unknown == 0
    axes.set(title="crown diameters", xlabel="m" if metres else "px", ylabel="crowns")
    found = {name: stats.values[name][1 if metres else 0] for name in stats.classes}
    shown = {name: values for name, values in found.items() if len(values)}
    if shown:
        colors = [color for name, color in colours_of(list(found)).items() if name in shown]
        axes.hist(list(shown.values()), bins=30, label=list(shown), stacked=True, color=colors)
        axes.legend(fontsize="small")
    else:
        _nothing(axes, "no crowns")


def _tiles(axes: Any, stats: SetStats) -> None:
    tiles, _ = stats.values[""]
    axes.set(title=f"crowns in a tile of {stats.tile_size_px} px", xlabel="crowns", ylabel="tiles")
    step = max(1, int(tiles.max()) // 40)  # whole crowns, or the bars would have gaps
    axes.hist(tiles, bins=[edge - 0.5 for edge in range(0, int(tiles.max()) + step + 1, step)], color="#5b7f2a")
    axes.yaxis.get_major_locator().set_params(integer=True)


def _cover(axes: Any, stats: SetStats) -> None:
    axes.set(title="land cover", ylabel="share of known pixels")
    if stats.land_cover is None:
        _nothing(axes, "no land cover")
        return
    bars = axes.bar(list(stats.land_cover), list(stats.land_cover.values()), color="#5b7f2a")
    axes.bar_label(bars, fmt="%.3f")
    axes.margins(y=0.15)
    axes.tick_params(axis="x", rotation=20)


def _nothing(axes: Any, text: str) -> None:
    axes.set(xticks=[], yticks=[], ylabel="")
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
