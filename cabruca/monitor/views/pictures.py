"""Pictures of a run: validations with a slider over the epochs, plots, the test's; the view of the page Run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import streamlit as st

from cabruca.monitor import look
from cabruca.monitor.earlier import pictures_at, pictures_stamp, steps_with_pictures
from cabruca.monitor.left import pictures_by_epoch, plots_of, test_pictures
from cabruca.monitor.rows import Rows
from cabruca.tracking.run_dir import RunDir

Pictures = Mapping[str, Path | bytes]
"""Title -> a file, or its content."""


def show(run: RunDir, rows: Rows) -> None:
    """All there are."""
    by_epoch = {epoch: _titled(paths) for epoch, paths in pictures_by_epoch(run).items()}
    plots, test = _titled(plots_of(run)), _titled(test_pictures(run))
    if not plots and not by_epoch and not test:
        look.nothing("image", "No pictures yet", "They come with the first validation, under `predictions/`.")
        return
    if by_epoch:
        st.subheader("Validation: truth beside prediction")
        _validations(run, rows, by_epoch)
    for title, found in (("Plots", plots), ("Test", test)):
        if found:
            st.subheader(title)
            _grid(found)


def _titled(paths: list[Path]) -> Pictures:
    return {path.stem.removeprefix("val_"): path for path in paths}


def _validations(run: RunDir, rows: Rows, by_epoch: Mapping[int | None, Pictures]) -> None:
    """A slider where there are pictures of several epochs: in predictions/, else in tensorboard/."""
    if len(by_epoch) > 1:
        epochs = list(by_epoch)
        titles = {epoch: "newest" if epoch is None else str(epoch) for epoch in epochs}
        chosen = st.select_slider("Epoch", epochs, epochs[-1], format_func=titles.get, key="epoch of pictures")
        _grid(by_epoch[chosen])
        return
    newest = next(iter(by_epoch.values()))
    state = pictures_stamp(run.tensorboard, [path for path in newest.values() if isinstance(path, Path)])
    places = look.books().steps.get(run.path, state, lambda: steps_with_pictures(run.tensorboard))
    steps = list(places)
    if len(steps) < 2:
        _grid(newest)
        return
    titles_of_steps = _epochs(rows, steps)
    step = st.select_slider("Epoch", steps, steps[-1], format_func=titles_of_steps.get, key="step of pictures")
    if step == steps[-1]:
        _grid(newest)
        return
    files = places[step]
    _grid(look.books().earlier.get((run.path, step), tuple(files), lambda: pictures_at(files, step)))


def _epochs(rows: Rows, steps: list[int]) -> dict[int, str]:
    """Step -> the epoch that ended with it."""
    at, completed = rows.own("step"), rows.own("epoch")
    known = {int(step): int(epoch) for step, epoch in zip(at, completed, strict=True) if np.isfinite(epoch)}
    return {step: str(known[step]) if step in known else f"step {step}" for step in steps}


def _grid(pictures: Pictures) -> None:
    columns = st.columns(2)
    for place, (title, picture) in enumerate(pictures.items()):
        with columns[place % 2].container(border=True):
            try:
                content = picture if isinstance(picture, bytes) else picture.read_bytes()
                st.image(content, caption=look.plain(title), width="stretch")
            except Exception:  # half written, gone, or no picture at all: the others are shown
                st.caption(f"{look.plain(title)} cannot be read")
