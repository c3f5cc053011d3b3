"""The report's pictures, as PNG bytes: the map of crowns, cover by window, diameters."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from shapely.geometry.base import BaseGeometry

from cabruca.colours import colours_of
from cabruca.ground import Floats
from cabruca.predict.backdrop import Backdrop
from cabruca.predict.farm_map import FarmMap
from cabruca.predict.stands import Ground

LINE = "#22302a"
MOST_OUTLINES = 20_000
"""More crowns are drawn as points."""


def crown_map(farm: FarmMap, plots: Sequence[Ground], behind: Backdrop | None) -> bytes:
    """Every crown by its class, over the image where there is one; the plots' outlines with their names."""
    figure, axes = _map(farm)
    if behind is not None:
        axes.imshow(behind.rgb, extent=behind.extent_m, zorder=0)
    colours = colours_of(farm.names)
    for label, name in enumerate(farm.names, 1):
        own = np.flatnonzero(farm.trees.labels == label)
        if len(own) == 0:
            continue
        told = f"{name.replace('_', ' ')} ({len(own)})"
        if len(farm.trees) > MOST_OUTLINES:
            x, y = farm.trees.xy[own].T
            axes.scatter(x, y, s=1, color=colours[name], label=told)
        else:
            axes.add_collection(_filled(farm.outlines[own], colours[name], told))
    for plot in plots if len(plots) > 1 else []:
        _outline(axes, plot.plot.domain)
        if len(plots) <= 60:
            x, y = plot.plot.domain.centroid.coords[0]
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
            axes.text(x, y, plot.name[:20], fontsize="small", ha="center", va="center", color=LINE, bbox=box)
    if len(farm.trees):
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return _png(figure)


def cover_map(farm: FarmMap) -> bytes | None:
    """Canopy cover and shade cover of each tile, side by side; None where no tile knows its cover."""
    if not (np.isfinite(farm.canopy).any() or np.isfinite(farm.shade).any()):
        return None
    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, cover) in zip(
        figure.subplots(1, 2), (("canopy cover", farm.canopy), ("shade cover", farm.shade)), strict=True
    ):
        known = np.isfinite(cover)
        faces = PolyCollection(_rings(farm.tiles[known]), array=cover[known], cmap="YlGn", edgecolor="none")
        faces.set_clim(0, 1)
        axes.add_collection(faces)
        _frame(axes, farm.ground)
        axes.set_title(title, fontsize="medium")
        figure.colorbar(faces, ax=axes, shrink=0.8)
    return _png(figure)


def diameters(farm: FarmMap) -> bytes | None:
    """How many crowns of each class have which diameter; None without crowns."""
    if len(farm.trees) == 0:
        return None
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    top = float(farm.trees.diameter.max()) or 1.0  # the largest are the rarest too: shade trees
    for label, name in enumerate(farm.names, 1):
        own = farm.trees.diameter[farm.trees.labels == label]
        if len(own):
            axes.hist(
                own,
                bins=np.linspace(0, top, 31).tolist(),
                alpha=0.6,
                color=colours_of(farm.names)[name],
                label=name.replace("_", " "),
            )
    axes.set(xlabel="crown diameter, m", ylabel="crowns")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False)
    return _png(figure)


def _map(farm: FarmMap) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.2, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _frame(axes, farm.ground)
    _outline(axes, farm.ground)
    return figure, axes


def _frame(axes: Axes, ground: BaseGeometry) -> None:
    x0, y0, x1, y1 = ground.bounds
    margin = 0.02 * max(x1 - x0, y1 - y0)
    axes.set(xlim=(x0 - margin, x1 + margin), ylim=(y0 - margin, y1 + margin), aspect="equal", xticks=[], yticks=[])
    length = _round(0.2 * (x1 - x0))
    axes.plot([x0, x0 + length], [y0 - margin / 2] * 2, color=LINE, linewidth=3, zorder=6)
    axes.set_xlabel(f"{length:g} m (bar)", loc="left", fontsize="small")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _round(length: float) -> float:
    power = 10 ** np.floor(np.log10(length)) if length > 0 else 1.0
    return float(power * max(k for k in (1, 2, 5) if k * power <= length))


def _outline(axes: Axes, shape: BaseGeometry) -> None:
    for part in shapely.get_parts(shape):
        if part.geom_type == "Polygon":
            axes.plot(*part.exterior.coords.xy, color=LINE, linewidth=0.8, zorder=5)


def _filled(shapes: Floats, colour: str, label: str) -> PolyCollection:
    return PolyCollection(_rings(shapes), facecolor=colour, edgecolor=colour, alpha=0.55, linewidth=0.4, label=label)


def _rings(shapes: Floats) -> list[Floats]:
    return [shapely.get_coordinates(part.exterior) for part in shapely.get_parts(shapes) if part.geom_type == "Polygon"]


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, facecolor="white")
    return out.getvalue()
