"""Checkpoints: what a run has kept, whether it is whole, how it is used, and removing one."""

from __future__ import annotations

from collections.abc import Sequence

import pandas
import streamlit as st

from cabruca.config.load import read_own
from cabruca.errors import CabrucaError
from cabruca.monitor import look
from cabruca.monitor.checkpoints import PROTECTED, uses_of
from cabruca.monitor.places import run_at
from cabruca.tracking.kept import Kept

READ_UNASKED = 4_000_000_000
"""Bytes that are read for their hashes without a question."""

_HEX = {"intact": "#3a9163", "damaged": "#d64545", "missing": "#d64545", "no sidecar": "#c98a1b"}


def show() -> None:
    """The page."""
    st.title("Checkpoints")
    name = look.choose_run()
    if name is None:
        return
    found = _read(name)
    if found is None:
        return
    if freed := st.session_state.pop("freed", None):
        st.success(freed, icon=":material/delete_sweep:")
    if not found:
        look.nothing("save", "No checkpoint yet", "The first one is written at the end of the first epoch.")
        return
    _numbers(found)
    frame = pandas.DataFrame([_row(one) for one in found])
    frame[["epoch", "step"]] = frame[["epoch", "step"]].astype("Int64")  # with gaps, where a sidecar is missing
    styled = frame.style.map(lambda text: f"color: {_HEX.get(text[2:], '#888888')}", subset=["hash"])
    styled = styled.format({"size": look.size}, na_rep="-")  # on the screen alone: a click on the head sorts bytes
    st.dataframe(styled, hide_index=True, height=36 + 35 * min(len(found), 14))
    use, delete = st.columns(2, gap="large")
    with use:
        _use(name, found)
    with delete:
        _delete(name, found)


def _read(name: str) -> list[Kept] | None:
    unread = look.books().checkpoints.unread_bytes(name)
    if unread > READ_UNASKED and not st.button(f"Read {look.size(unread)} to verify the hashes"):
        st.info(f"The checkpoints of {name} are large; reading them takes a while.", icon=":material/hourglass_top:")
        return None
    with st.spinner("Verifying hashes ..."):
        return look.books().checkpoints.of(name)


def _numbers(found: Sequence[Kept]) -> None:
    bad = sum(one.condition != "intact" for one in found)
    values = (("Checkpoints", str(len(found))), ("Not intact", str(bad)), ("On the disk", look.size(_disk(found))))
    for column, (label, value) in zip(st.columns(3), values, strict=True):
        column.metric(label, value, border=True)


def _disk(found: Sequence[Kept]) -> int:
    stats = [one.path.stat() for one in found if one.path.is_file()]
    return sum({(s.st_dev, s.st_ino): s.st_size for s in stats}.values())


def _row(one: Kept) -> dict[str, object]:
    return {
        "checkpoint": one.path.name,
        "epoch": one.epoch,
        "step": one.step,
        "metric": one.metric,
        "size": one.bytes,
        "hash": f"● {one.condition}",
        "": "protected" if one.path.name in PROTECTED else "",
    }


def _use(name: str, found: Sequence[Kept]) -> None:
    st.subheader("Use it")
    run = run_at(look.books().outputs, name)
    names = [one.path.name for one in found if one.condition in ("intact", "no sidecar")]
    if not names:
        st.warning("None of them is whole.", icon=":material/warning:")
        return
    chosen = st.selectbox("Checkpoint", names, key="checkpoint to use")
    for use in uses_of(run, run.checkpoints / chosen, read_own(run.config_yaml)):
        st.caption(use.what)
        st.code(use.command, language="bash", wrap_lines=True)


def _delete(name: str, found: Sequence[Kept]) -> None:
    st.subheader("Remove")
    removable = [one.path.name for one in found if one.path.name not in PROTECTED]
    if not removable:
        st.caption("Best and latest are protected, and there is no other.")
        return
    st.caption("Best and latest are protected. A file with a second name frees nothing until both are gone.")
    files = st.multiselect("Checkpoints to remove", removable, key=f"to remove of {name}", placeholder="none")
    if st.button("Remove ...", icon=":material/delete:", disabled=not files):
        _confirm(name, files)


@st.dialog("Remove checkpoints?")
def _confirm(name: str, files: Sequence[str]) -> None:
    try:
        freed = look.books().checkpoints.freed_by(name, list(files))
    except CabrucaError as error:
        st.error(look.plain(str(error)))
        return
    st.markdown("\n".join(f"- `{file}`" for file in files))
    st.markdown(f"of run `{name}`. This frees **{look.size(freed)}** and cannot be undone.")
    with st.container(horizontal=True):
        if st.button("Remove for good", type="primary", icon=":material/delete_forever:"):
            try:
                freed = look.books().checkpoints.delete(name, list(files))
            except CabrucaError as error:
                st.error(look.plain(str(error)))
                return
            many = f"{len(files)} checkpoint{'' if len(files) == 1 else 's'}"
            st.session_state["freed"] = f"Removed {many} of {name}: {look.size(freed)} freed."
            st.rerun()
        if st.button("Keep them"):
            st.rerun()
