"""Map: the crowns of a prediction over their orthomosaic, and a table a plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st

from cabruca.commands import command
from cabruca.errors import DataError
from cabruca.monitor import look
from cabruca.monitor.cache import stamp
from cabruca.monitor.crowns import Bools, Crowns, Overview, find_picture, overview, predictions_of, read_prediction
from cabruca.monitor.map_figure import map_figure


def show() -> None:
    """The page."""
    st.title("Map")
    books = look.books()
    names = predictions_of(books.outputs)
    if not names:
        best = Path("outputs") / "RUN" / "checkpoints" / "checkpoint_best.pth"
        out = books.outputs / "map.gpkg"
        go = command("predict", "--checkpoint", best, "--image", "ORTHOMOSAIC.tif", "--out", out)
        where = f"No GeoPackage of crowns lies below `{books.outputs}`. Find some:"
        look.nothing("map", "No prediction yet", where, go)
        return
    name = look.choose("prediction", names, "Prediction")
    path = books.outputs / name
    crowns = books.crowns.get(path, stamp(path), lambda: read_prediction(books.outputs, name))
    if not crowns.images:
        look.nothing("map", "No crown in it", "The prediction has no picture with a crown.")
        return
    image = look.choose("image", crowns.images, "Picture")
    if crowns.left_out:
        read = len(crowns.geometries)
        text = f"The first {read:,} crowns are shown; {crowns.left_out:,} more are in the file, for a GIS such as QGIS."
        st.warning(text, icon=":material/content_cut:")
    chosen = _filters(crowns, image)
    picture = _picture(image, path)
    left, right = st.columns([3, 1], gap="medium")
    with left.container(border=True):
        look.chart(map_figure(crowns, chosen, picture), f"map of {image}")
    with right:
        _numbers(crowns, chosen)
    _plots(crowns)


def _filters(crowns: Crowns, image: str) -> Bools:
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    classes = left.pills(
        "Classes", crowns.classes, selection_mode="multi", default=crowns.classes, key="classes of map"
    )
    least = right.slider("Score at least", 0.0, 1.0, 0.0, 0.01, key="score of map")
    return crowns.where(image, classes, least)


def _picture(image: str, prediction: Path) -> Overview | None:
    """The orthomosaic, where it is found."""
    given = st.session_state.get("folder of pictures", "")
    folders = [Path(given)] if given else []
    found = find_picture(image, [*folders, prediction.parent, prediction.parent.parent, Path.cwd()])
    if found is None:
        st.text_input(
            f"Folder in which '{image}' lies",
            key="folder of pictures",
            placeholder="data/test",
            help="The picture is not where the prediction is; the crowns are drawn without it until it is found.",
        )
        return None
    try:
        return look.books().overviews.get(found, stamp(found), lambda: overview(found))
    except DataError as error:
        st.warning(look.plain(str(error)), icon=":material/broken_image:")
        return None


def _numbers(crowns: Crowns, chosen: Bools) -> None:
    st.metric("Crowns shown", f"{int(chosen.sum()):,}", border=True)
    classes = crowns.columns["class"].astype(str)
    for name in crowns.classes:
        own = chosen & (classes == name)
        diameters = crowns.columns.get("diameter_m")
        known = diameters[own].astype(float) if diameters is not None else np.zeros(0)
        known = known[np.isfinite(known)]
        wide = f"mean diameter {known.mean():.1f} m" if len(known) else ""
        st.metric(name, f"{int(own.sum()):,}", border=True, help=wide or None)
        if wide:
            st.caption(wide)


def _plots(crowns: Crowns) -> None:
    st.subheader("Plots")
    if not crowns.plots:
        st.caption("The prediction has no layer `plots`.")
        return
    st.dataframe(crowns.plots, hide_index=True)
