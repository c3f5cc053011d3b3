"""The pictures that a run draws of its validations, and results.png: when they are drawn, and what they show."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_helpers import LineTask, line_config
from tracker_reading import mlflow_files, mlflow_runs, sqlite_uri, wandb_records

from cabruca.config.schema import Config
from cabruca.findings import ClassCurve, Findings, rules
from cabruca.run import run_training
from cabruca.tracking.canvas import Sparingly, head, headline, new_figure, note
from cabruca.tracking.charting import Charts, read_findings, write_charts
from cabruca.tracking.charts import CHARTS
from cabruca.tracking.guarded import Guarded
from cabruca.tracking.plots import ResultsPlot, draw
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.trackers import trackers_of
from cabruca.train.protocols import Record, RunInfo, TrainResult, Validation

INFO = RunInfo(9, 3, 4, 4, "cpu", "fp32", 10, 0, 0, {})


def findings(crowns: int = 6) -> Findings:
    """Every class found but for one crown; scores even between 0 and 1."""
    left = (np.arange(100, -1, -1) * crowns) // 100
    curve = ClassCurve("cacao_tree", "segm", crowns, np.linspace(1, 0.5, 101), left, left + 1)
    return Findings(
        classes=("cacao_tree", "shade_tree"),
        covers=("background", "cacao_tree"),
        score_threshold=0.5,
        curves=(curve,),
        pictures=("1",),
        counts=np.array([[[crowns, crowns - 1], [0, 0]]]),
        confusion=np.array([[crowns - 1, 0, 1], [0, 0, 0], [0, 0, 0]]),
        pixels=np.array([[90, 10], [5, 95]]),
        diameters=np.array([[4.0, 4.5], [6.0, 5.0]]),
        labels=np.array([1, 1]),
    )


class FindingTask(LineTask):
    """Fits a line, and finds crowns beside it: as many as epochs were done."""

    def validate(self, *args: Any, epoch: int, **more: Any) -> Validation:
        return dataclasses.replace(super().validate(*args, epoch=epoch, **more), findings=findings(epoch))


def validated(charts: Charts, epoch: int, value: float) -> None:
    charts.on_validation(Record(epoch, epoch, {"val/mAP_50": value}, findings=findings(epoch)))


def colours(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))


@pytest.mark.parametrize("name", CHARTS)
def test_each_chart_changes_with_what_was_found(name: str) -> None:
    one = CHARTS[name](findings(6), "a")
    assert colours(one) > 50
    other = dataclasses.replace(findings(7), diameters=np.array([[4.0, 4.5], [6.0, 9.0]]))
    assert CHARTS[name](other, "a") != one


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("count_scatter", "from a score of 0.5 on; a tree in two pictures counts in both"),
        ("confusion", "from a score of 0.5 on; each counts once"),
        ("diameter_scatter", "from a score of 0.5 on, each once"),
        ("pr_curve", "those cut by its edge too, picture by picture; found ones of any score"),
        ("f1_curve", "those cut by its edge too, picture by picture; found ones of any score"),
    ],
)
def test_each_chart_says_what_it_counts(name: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their sums differ where pictures overlap or cut crowns."""
    said: list[str] = []
    monkeypatch.setattr("cabruca.tracking.charts.note", lambda _, text: said.append(text))
    CHARTS[name](findings(), "a")
    (line,) = said
    assert told in line
    monkeypatch.undo()
    write_charts(tmp_path, findings(), "a")
    assert line in json.loads((tmp_path / "findings.json").read_text())["rules"].values()
    own = rules(dataclasses.replace(findings(), score_threshold=(0.5, 0.25, 0.75)))
    assert "scores of 0.25 and 0.75 on" in own["counts"]


@pytest.mark.parametrize("draw_line", [headline, note])
@pytest.mark.parametrize("text", ["short", "a" * 60 + "   epoch 12, val/segm_mAP_50/cacao_tree 0.8213", "n" * 120])
def test_a_line_of_any_length_stays_in_its_picture(draw_line: Any, text: str) -> None:
    figure, (axes,) = new_figure(1, size=(6.4, 5.0))
    head(axes, "crowns")
    draw_line(figure, text)
    figure.canvas.draw()
    (shown,) = [figure._suptitle] if draw_line is headline else figure.texts
    assert shown.get_text().replace("\n", "   ") == text
    box = shown.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert draw_line is note or box.y0 > axes.title.get_window_extent().y1 - 2


@pytest.mark.parametrize("name", CHARTS)
def test_nothing_found_is_drawn_too(name: str) -> None:
    assert CHARTS[name](Findings(("cacao_tree",), ("background",), 0.5), "a").startswith(b"\x89PNG")


def test_a_run_leaves_the_pictures_of_its_best_validation(tmp_path: Path) -> None:
    result = run_training(line_config(tmp_path, experiment_name="a"), task_factory=FindingTask, quiet=True)
    plots = tmp_path / "a" / "plots"
    assert {p.stem for p in plots.glob("*.png")} == {*CHARTS, "results"}
    found = read_findings(plots)
    assert found is not None
    assert (found["epoch"], found["value"]) == (result.best_epoch, pytest.approx(result.best))
    assert found["findings"].to_dict() == findings(int(result.best_epoch or 0)).to_dict()
    assert not list(plots.glob(".*"))  # no half file


@pytest.mark.parametrize(("minimize", "kept"), [(False, 2), (True, 3)])
def test_only_a_better_validation_is_drawn(tmp_path: Path, minimize: bool, kept: int) -> None:
    config = line_config(tmp_path, training__minimize_metric=minimize)
    charts = Charts(RunDir(tmp_path / "a"), config)
    charts.on_start(INFO)
    for epoch, value in enumerate((0.4, 0.6, 0.2, 0.5, float("nan")), 1):
        validated(charts, epoch, value)
    charts.on_end(None, None)
    found = read_findings(tmp_path / "a" / "plots")
    assert found is not None
    assert found["epoch"] == kept


def test_without_a_value_the_last_validation_is_drawn(tmp_path: Path) -> None:
    charts = Charts(RunDir(tmp_path / "a"), line_config(tmp_path))
    charts.on_start(INFO)
    for epoch in (1, 2):
        validated(charts, epoch, float("nan"))
    charts.on_end(None, None)
    found = read_findings(tmp_path / "a" / "plots")
    assert found is not None
    assert (found["epoch"], found["value"]) == (2, None)


@pytest.mark.parametrize(("resumed", "drawn"), [(3, 3), (2, 4)])
def test_a_resumed_run_knows_the_best_before_unless_it_makes_it_again(tmp_path: Path, resumed: int, drawn: int) -> None:
    """Killed after the pictures of epoch 3 were drawn; going on from epoch 2 they are of epochs that are no more."""
    run = RunDir(tmp_path / "a")
    write_charts(run.plots, findings(3), "", {"epoch": 3, "metric": "val/mAP_50", "value": 0.9})
    charts = Charts(run, line_config(tmp_path))
    charts.on_start(dataclasses.replace(INFO, resumed_epoch=resumed))
    validated(charts, 4, 0.5)
    charts.on_end(None, None)
    found = read_findings(run.plots)
    assert found is not None
    assert found["epoch"] == drawn


END = TrainResult("finished", 2, 2, 0.6, 1, {}, "")


@pytest.mark.parametrize(
    ("end", "best", "said"),
    [
        (END, 1, True),
        (END, 2, False),
        (dataclasses.replace(END, state="stopped"), 1, False),
        (dataclasses.replace(END, state="interrupted"), 1, False),
        (None, 1, False),
    ],
)
def test_a_cap_that_is_reached_is_said_once_at_the_end_and_of_the_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, end: TrainResult | None, best: int, said: bool
) -> None:
    """The first of two validations reached it."""
    charts = Charts(RunDir(tmp_path / "a"), line_config(tmp_path, validation__max_detections=7))
    charts.on_start(INFO)
    for epoch in (1, 2):
        full = ("12:512:0", "9:0:0") if epoch == 1 else ()
        own = dataclasses.replace(findings(epoch), full=full)
        value = 0.6 if epoch == best else 0.4
        charts.on_validation(Record(epoch, epoch, {"val/mAP_50": value}, findings=own))
    assert not caplog.records
    charts.on_end(end, None)
    told = (
        "validation.max_detections is 7, and in 2 pictures or windows as many crowns count (first: picture 12 from x "
        "0, y 512 px on): crowns may be missing; raise it"
    )
    assert [r.getMessage() for r in caplog.records] == [told] * said


@pytest.mark.parametrize("text", ["", "{", "[]", '{"findings": {}}', '{"findings": null, "epoch": "x"}'])
def test_half_a_findings_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "findings.json").write_text(text)
    assert read_findings(tmp_path) is None


def test_results_png_is_rewritten_each_epoch_and_knows_those_before(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "a")
    run.plots.mkdir(parents=True)
    run.history.write_text(json.dumps({"epoch": [1], "step": [3], "train/total_loss": [2.0]}))
    plot = ResultsPlot(run, line_config(tmp_path))
    plot._sparingly = Sparingly(share=1e9)
    plot.on_start(dataclasses.replace(INFO, resumed_epoch=1))
    seen = []
    for epoch in (2, 3):
        plot.on_epoch(Record(epoch, 3 * epoch, {"train/total_loss": 2.0 / epoch, "val/mAP_50": 0.1 * epoch}))
        seen.append((run.plots / "results.png").read_bytes())
    assert seen[0] != seen[1]
    whole = {"epoch": [1, 2, 3], "train/total_loss": [2.0, 1.0, 2 / 3], "val/mAP_50": [None, 0.2, 0.1 * 3]}
    assert seen[1] == draw(whole, "val/mAP_50", title="a")


@pytest.mark.parametrize("rates", [[6.66e-5, 6.70e-5, 6.72e-5], [2e-3, 1e-3, 5e-4], [3e-4, 3e-4, 3e-4]])
def test_labels_of_a_narrow_axis_differ(rates: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("cabruca.tracking.plots.png", lambda figure: figures.append(figure) or b"")
    draw({"epoch": [1, 2, 3], "lr/heads": rates}, "val/mAP_50")
    (axes,) = [one for one in figures[0].axes if one.get_title(loc="left").startswith("learning rate, in 1e")]
    figures[0].canvas.draw()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(labels)) == len(labels) > 2
    assert min(label.get_window_extent().x0 for label in axes.get_yticklabels()) >= 0, "none is cut"


def test_drawing_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("cabruca.tracking.canvas.time.monotonic", lambda: now[0])
    sparingly, drawn = Sparingly(0.05), 0
    for _ in range(100):
        now[0] += 1.0  # an epoch
        if sparingly.due():
            with sparingly:
                now[0] += 0.5
            drawn += 1
    assert drawn == 10  # each 10 epochs, which last 20 drawings


def test_all_drawers_of_a_run_share_a_twentieth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, drawn = [0.0], [0.0]

    def draw_for(seconds: float) -> bytes:
        now[0] += seconds
        drawn[0] += seconds
        return b""

    monkeypatch.setattr("cabruca.tracking.canvas.time.monotonic", lambda: now[0])
    monkeypatch.setattr("cabruca.tracking.charting.write_charts", lambda *_: draw_for(2.0))
    monkeypatch.setattr("cabruca.tracking.plots.draw", lambda *_, **__: draw_for(0.5))
    chosen = trackers_of(RunDir(tmp_path / "a"), line_config(tmp_path, tracking__tensorboard=False))
    drawers = [one._callback for one in chosen if isinstance(one, Guarded)]
    drawers = [one for one in drawers if isinstance(one, Charts | ResultsPlot)]
    for epoch in range(1, 1_001):
        now[0] += 1.0
        for one in drawers:
            one.on_validation(Record(epoch, epoch, {"val/mAP_50": epoch / 1_000}, findings=findings(epoch)))
            one.on_epoch(Record(epoch, epoch, {"val/mAP_50": epoch / 1_000}))
    assert len(drawers) == 2
    assert 0.03 < drawn[0] / now[0] < 0.055


def test_trackers_show_the_pictures_and_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config: Config = line_config(tmp_path, experiment_name="a", tracking={"mlflow": True, "wandb": True})
    run_training(config, task_factory=FindingTask, quiet=True)
    names = {*CHARTS, "results"}
    board = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    board.Reload()
    assert {f"plots/{name}" for name in names} <= {*board.Tags()["images"]}
    assert board.Images("plots/pr_curve")[0].step == 18
    assert "model card/text_summary" in board.Tags()["tensors"]
    (run,) = mlflow_runs(sqlite_uri(tmp_path))
    sent = mlflow_files(sqlite_uri(tmp_path), run)
    assert {"MODEL_CARD.md", "plots/findings.json", *(f"plots/{name}.png" for name in names)} <= sent
    (file,) = (tmp_path / "a" / "wandb").rglob("*.wandb")
    history = [r.history for r in wandb_records(file) if r.WhichOneof("record_type") == "history"]
    keys = {item.key or "/".join(item.nested_key) for h in history for item in h.item}
    assert {f"plots/{name}" for name in names} <= {key.removesuffix("/_type") for key in keys}
    assert (file.parent / "files" / "MODEL_CARD.md").read_text() == (tmp_path / "a" / "MODEL_CARD.md").read_text()


def test_scores_by_class_are_drawn_in_their_colours(tmp_path: Path) -> None:
    write_charts(tmp_path / "one", findings(), "one score")
    write_charts(tmp_path / "own", dataclasses.replace(findings(), score_threshold=(0.5, 0.2, 0.8)), "a score a class")
    one, own = ((tmp_path / name / "f1_curve.png").read_bytes() for name in ("one", "own"))
    assert one != own
    told = read_findings(tmp_path / "own")
    assert told is not None
    assert told["findings"].score_threshold == (0.5, 0.2, 0.8)
