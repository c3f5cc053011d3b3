"""What pages draw anew and when, what they do not read again, and what they make of text and errors."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitor_files import draw_prediction, draw_run, draw_study, texts

from cabruca.errors import CabrucaError

pytest.importorskip("streamlit")

from cabruca.monitor.cache import Kept
from cabruca.monitor.look import QUIET_S, books, plain, until_other

Open = Callable[..., Any]


def test_event_files_are_read_again_only_where_pictures_are_others(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from torch.utils.tensorboard import SummaryWriter

    events = 0

    class Counted(LegacyEventFileLoader):
        def Load(self) -> Iterator[Any]:
            nonlocal events
            for event in super().Load():
                events += 1
                yield event

    def read() -> int:
        nonlocal events
        events = 0
        app.run()
        assert not app.exception
        return events

    monkeypatch.setattr(f"{LegacyEventFileLoader.__module__}.LegacyEventFileLoader", Counted)
    run = draw_run(tmp_path / "outputs", "one", epochs=0)
    newest = run / "predictions" / "val_line.png"
    newest.parent.mkdir()
    with SummaryWriter(str(run / "tensorboard")) as writer:

        def train(steps: range, minutes_ago: float) -> None:
            for step in steps:
                writer.add_scalar("train/total_loss", 1.0, step)
            writer.flush()
            newest.touch()
            os.utime(newest, (time.time() - 60 * minutes_ago,) * 2)

        for step in (10, 20, 30):
            train(range(step - 9, step + 1), 5)
            writer.add_image("val/line", np.full((4, 4, 3), step, np.uint8), step, dataformats="HWC")
        writer.flush()
        app = open_page("run")
        app.segmented_control(key="view of run").set_value("Pictures").run()
        assert app.select_slider(key="step of pictures").options == ["step 10", "step 20", "step 30"]
        app.select_slider(key="step of pictures").set_value(10)
        assert 11 < read() <= 23, "the earlier picture, and nothing of what follows the next"
        stood = newest.stat().st_mtime_ns
        train(range(31, 500), 5)
        os.utime(newest, ns=(stood, stood))
        assert read() == 0
        train(range(500, 501), 0)  # a validation whose pictures wait to be flushed
        assert read() > 500
        assert read() == 0
        writer.add_image("val/line", np.zeros((4, 4, 3), np.uint8), 500, dataformats="HWC")
        writer.flush()
        monkeypatch.setattr("cabruca.monitor.earlier.SETTLED_S", -1.0)
        assert read() > 500
        assert app.select_slider(key="step of pictures").options[-1] == "step 500"
        assert read() == 0


class _Drawn:
    """Functions of pages that were made fragments, and every how many seconds each is drawn anew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import streamlit

        own, self.every = streamlit.fragment, {}

        def fragment(function: Any, *, run_every: Any = None) -> Any:
            self.every[function.__name__] = run_every
            return own(function, run_every=run_every)

        monkeypatch.setattr(streamlit, "fragment", fragment)


@pytest.mark.parametrize("name", ["run", "compare", "checkpoints", "studies"])
def test_an_empty_page_looks_again_by_itself(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("cabruca.monitor.look.until_other", look_twice(tmp_path / "outputs"))
    drawn = _Drawn(monkeypatch)
    app = open_page(name)
    assert drawn.every["waiting"] == QUIET_S
    assert "yet" not in texts(app)


def look_twice(outputs: Path) -> Callable[..., None]:
    """`until_other`, but that something comes between its two looks: at once, instead of after ten seconds."""

    def until(look: Callable[[], object], draw: Callable[[], None]) -> None:
        looks = 0

        def coming() -> object:
            nonlocal looks
            looks += 1
            if looks == 2:
                draw_run(outputs, "one")
                draw_run(outputs, "two")
                draw_study(outputs)
                books().table._names = Kept()
            return look()

        until_other(coming, draw)

    return until


@pytest.mark.parametrize(("name", "body"), [("compare", "_body"), ("studies", "_body"), ("run", "_body")])
def test_what_is_not_at_work_is_looked_at_now_and_then(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str
) -> None:
    draw_run(tmp_path / "outputs", "a")
    draw_run(tmp_path / "outputs", "b")
    draw_study(tmp_path / "outputs")
    drawn = _Drawn(monkeypatch)
    open_page(name)
    assert drawn.every[body] == QUIET_S


VIEWS = {
    "run": ("view of run", ("Curves", "System", "Pictures", "Configuration", "Environment", "Log")),
    "studies": ("view of study", ("Overview", "Curves", "Optuna", "Failed trials", "Repeats")),
}


def test_looking_at_everything_writes_nothing(open_page: Open, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    draw_run(outputs, "a", state="running")
    draw_run(outputs, "b", torn=True)
    draw_study(outputs)
    draw_prediction(outputs / "b" / "predictions")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in outputs.rglob("*")}
    for name in ("runs", "run", "compare", "checkpoints", "studies", "crown_map"):
        app = open_page(name)
        key, views = VIEWS.get(name, ("", ()))
        for view in views:
            app.segmented_control(key=key).set_value(view).run()
            assert not app.exception
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in outputs.rglob("*")} == before


def test_an_error_for_people_in_a_fragment_is_a_line(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise CabrucaError("metrics.jsonl of [one](http://evil) is gone")

    draw_run(tmp_path / "outputs", "one")
    for place in ("run._head", "runs._numbers"):
        monkeypatch.setattr(f"cabruca.monitor.views.{place}", broken)
    for name in ("run", "runs"):
        app = open_page(name)
        assert [error.value for error in app.error] == [plain("metrics.jsonl of [one](http://evil) is gone")]
    assert "Traceback" not in caplog.text


def test_text_out_of_files_is_no_markdown(open_page: Open, tmp_path: Path) -> None:
    run = draw_run(tmp_path / "outputs", "one", state="failed")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "message": "![x](http://evil/x.png)\n# big"}))
    (run / "notes.json").write_text(json.dumps({"tags": ["*a*"], "note": "$x$ :red[b]"}))
    said = texts(open_page("run"))
    assert said.count(r"\!\[x\]\(http\:\/\/evil\/x\.png\) \# big") == 2
    assert "![x]" not in said
    assert r"\$x\$ \:red\[b\]" in said
