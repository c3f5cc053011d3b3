"""The pages, put together; run by `cabruca monitor` through `streamlit run`. Thin: what is shown is made elsewhere."""

from __future__ import annotations

import streamlit as st
from PIL import Image, ImageDraw

from cabruca.monitor.look import page

PAGES = (
    ("Runs", "table_rows", "cabruca.monitor.views.runs"),
    ("Run", "show_chart", "cabruca.monitor.views.run"),
    ("Compare", "compare_arrows", "cabruca.monitor.views.compare"),
    ("Checkpoints", "save", "cabruca.monitor.views.checkpoints"),
    ("Studies", "science", "cabruca.monitor.views.studies"),
    ("Map", "map", "cabruca.monitor.views.crown_map"),
)
"""Title, icon, module with a `show()`, which is imported when the page is asked for: the first page comes sooner."""


def _icon() -> Image.Image:
    """Crowns from above. Drawn here: an icon by name would be fetched from another host."""
    picture = Image.new("RGBA", (64, 64))
    pen = ImageDraw.Draw(picture)
    for x, y, radius, colour in ((22, 38, 20, "#2f6b4f"), (44, 26, 17, "#6cbf8d"), (46, 48, 11, "#c1440e")):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture


def main() -> None:
    """Draw the page that the address asks for."""
    st.set_page_config("cabruca monitor", page_icon=_icon(), layout="wide")
    st.html("<style>.stMainBlockContainer { padding-top: 2.5rem; padding-bottom: 3rem; }</style>")
    st.session_state["pages"] = pages = {
        title: st.Page(
            page(module), title=title, icon=f":material/{icon}:", url_path=title.lower(), default=title == "Runs"
        )
        for title, icon, module in PAGES
    }
    st.navigation(list(pages.values())).run()


main()
