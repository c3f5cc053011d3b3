"""The map: crowns over a small picture of their orthomosaic. No tiles, so no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cabruca.colours import colours_of, rgb_of
from cabruca.monitor.crowns import Crowns, Overview, rings_px

HOVERED_BELOW = 3_000
"""Crowns up to which each is told of under the pointer."""


def map_figure(crowns: Crowns, chosen: npt.NDArray[np.bool_], picture: Overview | None) -> Any:
    """Outlines by class.

    Args:
        chosen: `[N]` the crowns that are drawn. picture: what they are drawn over; None: nothing.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    classes = crowns.columns["class"].astype(str)
    for name, colour in colours_of(crowns.classes).items():
        own = chosen & (classes == name)
        if own.any():
            _outlines(figure, crowns, own, picture, name=name, colour=colour)
    told = int(chosen.sum()) <= HOVERED_BELOW
    if told:
        _centres(figure, crowns, chosen, picture)
    figure.update_layout(
        height=760,
        margin={"l": 0, "r": 0, "t": 28, "b": 0},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        dragmode="pan",
        hovermode="closest",
        uirevision="kept",
    )
    _axes(figure, picture)
    return figure


def _axes(figure: Any, picture: Overview | None) -> None:
    plain = {"showgrid": False, "zeroline": False, "visible": picture is None}
    if picture is None:
        figure.update_xaxes(**plain)
        figure.update_yaxes(scaleanchor="x", **plain)
        return
    figure.add_layout_image(
        source=_as_address(picture.rgb),
        xref="x",
        yref="y",
        x=0,
        y=0,
        sizex=picture.width,
        sizey=picture.height,
        sizing="stretch",
        layer="below",
    )
    figure.update_xaxes(range=[0, picture.width], constrain="domain", **plain)
    figure.update_yaxes(range=[picture.height, 0], scaleanchor="x", constrain="domain", **plain)


def _outlines(
    figure: Any, crowns: Crowns, own: npt.NDArray[np.bool_], picture: Overview | None, *, name: str, colour: str
) -> None:
    """All outlines of a class as one line with gaps: thousands are drawn at once."""
    import shapely

    rings, size = rings_px(crowns.geometries[own], picture)
    gap = np.full((1, 2), np.nan)
    parts = [part for ring in rings for part in (_simple(shapely, ring, size / 2), gap)]
    xy = np.concatenate(parts) if parts else np.zeros((0, 2))
    figure.add_scatter(
        x=xy[:, 0],
        y=xy[:, 1],
        mode="lines",
        name=f"{name} ({int(own.sum()):,})",
        line={"color": colour, "width": 1.8},
        fill="toself",
        fillcolor=f"rgba({', '.join(map(str, rgb_of(colour)))}, 0.22)",
        hoverinfo="skip",
    )


def _simple(shapely: Any, ring: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.float64]:
    """The ring without what is smaller than half a pixel of the screen."""
    if len(ring) < 12:
        return ring
    out: npt.NDArray[np.float64] = shapely.get_coordinates(shapely.simplify(shapely.linestrings(ring), tolerance))
    return out if len(out) >= 4 else ring


def _centres(figure: Any, crowns: Crowns, chosen: npt.NDArray[np.bool_], picture: Overview | None) -> None:
    """Points that cannot be seen and tell what is known of a crown."""
    rings, _ = rings_px(crowns.geometries[chosen], picture)
    if not rings or len(rings) != int(chosen.sum()):  # crowns of several parts: rather no points than wrong ones
        return
    xy = np.array([ring.mean(axis=0) for ring in rings])
    columns: Mapping[str, Any] = {key: values[chosen] for key, values in crowns.columns.items() if key in _TOLD}
    texts = [
        "<br>".join(f"{_TOLD[key]}: {_shown(values[i])}" for key, values in columns.items()) for i in range(len(xy))
    ]
    figure.add_scatter(
        x=xy[:, 0],
        y=xy[:, 1],
        mode="markers",
        marker={"size": 12, "opacity": 0.0},
        text=texts,
        hoverinfo="text",
        showlegend=False,
    )


_TOLD = {
    **{"crown_id": "crown", "class": "class", "score": "score", "diameter_m": "diameter, m", "area_m2": "area, m2"},
    "shape": "outline from",
}


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def _as_address(rgb: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(rgb).save(out, format="jpeg", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
