"""crown_map."""

import streamlit as st


def show() -> None:
    """The page."""
    st.title("crown_map")
