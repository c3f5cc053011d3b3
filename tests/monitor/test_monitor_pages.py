"""The pages drawn without a browser, over folders in every state."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitor_files import draw_prediction, draw_run, draw_study, texts
from PIL import Image

pytest.importorskip("streamlit")

PAGES = ("runs", "run", "compare", "checkpoints", "studies", "crown_map")

Open = Callable[..., Any]


@pytest.mark.parametrize("name", PAGES)
def test_an_empty_folder_is_a_sensible_page(open_page: Open, name: str) -> None:
    said = texts(open_page(name))
    assert "No run yet" in said or "No study yet" in said or "No prediction yet" in said
    assert "cabruca" in said


@pytest.mark.parametrize("name", PAGES)
def test_a_half_written_run_is_a_sensible_page(open_page: Open, tmp_path: Path, name: str) -> None:
    half = tmp_path / "outputs" / "half"
    half.mkdir(parents=True)
    (half / "status.json").write_text("")
    (half / "config.yaml").write_text("training: [1,")
    (half / "metrics.jsonl").write_text('{"time": 1')
    open_page(name)


@pytest.mark.parametrize("view", ["Curves", "System", "Pictures", "Configuration", "Environment", "Log"])
def test_every_view_of_a_run(open_page: Open, tmp_path: Path, view: str) -> None:
    run = draw_run(tmp_path / "outputs", "one", torn=True)
    (run / "plots").mkdir()
    (run / "plots" / "results.png").write_bytes(b"half a pic")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('\n{"time": 1, "stage": 0, "epoch": 4, "step": 25, "train/total_loss": NaN}\n')
    app = open_page("run")
    app.segmented_control(key="view of run").set_value(view).run()
    assert not app.exception
    assert [metric.label for metric in app.metric][:2] == ["val/mAP_50, best at epoch 4", "Epoch"]


def figures(app: Any) -> list[dict[str, Any]]:
    """The page's plotly figures."""
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def lines(app: Any, place: int = 0) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in figures(app)[place]["data"]}


def test_curves_are_smoothed_drawn_over_time_and_their_best_is_starred(open_page: Open, tmp_path: Path) -> None:
    draw_run(tmp_path / "outputs", "one", epochs=4, steps=6)
    app = open_page("run")
    titles = [one.value.strip("*") for one in app.markdown if one.value.startswith("**")]
    assert sorted(titles) == ["Canopy", "Detection", "Gradient norm", "Learning rate", "Losses"]
    assert {"train/total_loss", "train/loss_instance", "val/total_loss"} <= lines(app).keys()
    detection = lines(app, titles.index("Detection"))
    (star,) = [name for name in detection if name.startswith("best ")]
    assert float(star.removeprefix("best ")) == pytest.approx(max(values(detection["mAP_50"], "y")), abs=1e-3)
    assert values(detection[star], "x") == [4.0]
    rough = values(lines(app)["train/total_loss"], "y")
    app.slider(key="smoothing of run").set_value(0.9).run()
    smooth = values(lines(app)["train/total_loss"], "y")
    assert sum(abs(np.diff(smooth))) < 0.5 * sum(abs(np.diff(rough)))
    for axis, title, end in (("step", "optimizer step", 24.0), ("time", "minutes", 23.0)):
        app.segmented_control(key="axis of run").set_value(axis).run()
        layout = figures(app)[0]["layout"]
        assert layout["xaxis"]["title"]["text"] == title
        assert (layout["legend"]["yanchor"], layout["legend"]["y"] > 1) == ("bottom", True), "the title lies below"
        assert values(lines(app)["train/total_loss"], "x")[-1] == pytest.approx(end)


def values(line: dict[str, Any], axis: str) -> list[float]:
    """Of a line, which plotly writes as base64."""
    found = line[axis]
    return list(found if isinstance(found, list) else np.frombuffer(base64.b64decode(found["bdata"]), found["dtype"]))


def test_a_gpu_is_shown_where_there_is_one(open_page: Open, tmp_path: Path) -> None:
    run = draw_run(tmp_path / "outputs", "one")
    app = open_page("run")
    app.segmented_control(key="view of run").set_value("System").run()
    assert not any("GPU" in one.label for one in app.metric), "none here"
    row = {"time": 1.0, "stage": 0, "epoch": 5, "step": 30, "system/gpu_percent": 87.0, "system/gpu_memory_mb": 9_500.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    app.run()
    told = {one.label: one.value for one in app.metric}
    assert (told["GPU"], told["GPU memory"]) == ("87 %", "9,500 MB")
    assert {"**GPU, percent**", "**GPU memory, MB**", "**CPU, percent**"} <= {one.value for one in app.markdown}


def test_a_run_s_settings_its_environment_and_its_log(open_page: Open, tmp_path: Path) -> None:
    run = draw_run(tmp_path / "outputs", "one", lr=0.02)
    (run / "train.log").write_text("".join(f"line {n}\n" for n in range(500)))
    app = open_page("run")
    app.segmented_control(key="view of run").set_value("Configuration").run()
    table = app.dataframe[0].value.set_index("key")
    assert table.loc["optimizer.lr", ["value", "default"]].tolist() == ["0.02", "0.0001"]
    assert "data.tile_size" not in table.index
    app.toggle(key="only differences").set_value(False).run()
    assert {"data.tile_size", "optimizer.lr"} <= set(app.dataframe[0].value["key"])
    app.text_input(key="search settings").set_value("TILE").run()
    assert all("tile" in key for key in app.dataframe[0].value["key"])
    app.segmented_control(key="view of run").set_value("Environment").run()
    assert ("packages.torch", "2.9") in app.dataframe[0].value.itertuples(index=False, name=None)
    app.segmented_control(key="view of run").set_value("Log").run()
    assert app.code[0].value.splitlines()[0] == "line 300"
    assert app.code[0].value.splitlines()[-1] == "line 499"


def test_pictures_have_a_slider_over_their_epochs(open_page: Open, tmp_path: Path) -> None:
    run = draw_run(tmp_path / "outputs", "one")
    for epoch, colour in ((1, "red"), (3, "blue")):
        folder = run / "predictions" / f"epoch_{epoch:04d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(folder / "val_plot.png")
    app = open_page("run")
    app.segmented_control(key="view of run").set_value("Pictures").run()
    slider = app.select_slider(key="epoch of pictures")
    assert (slider.options, slider.value) == (["1", "3"], 3)
    newest = [one.url for one in (app.get("image") or app.get("imgs"))[0].proto.imgs]
    slider.set_value(1).run()
    assert not app.exception
    assert [one.url for one in (app.get("image") or app.get("imgs"))[0].proto.imgs] != newest


def test_a_run_that_died_says_so_and_how_to_go_on(open_page: Open, tmp_path: Path) -> None:
    draw_run(tmp_path / "outputs", "dead", state="running", age_s=100)
    said = texts(open_page("run"))
    assert "This run died: its last heartbeat is 10" in said
    assert "--resume auto --experiment-name dead" in said


def test_a_run_that_is_not_there_is_said_and_another_shown(open_page: Open, tmp_path: Path) -> None:
    draw_run(tmp_path / "outputs", "one")
    app = open_page("run", {"run": "../../etc"})
    assert r"There is no run \'\.\.\/\.\.\/etc\'" in texts(app)
    assert app.selectbox(key="choice of run").value == "one"


def test_the_address_chooses_the_run(open_page: Open, tmp_path: Path) -> None:
    draw_run(tmp_path / "outputs", "one")
    draw_run(tmp_path / "outputs", "two")
    assert open_page("run", {"run": "two"}).selectbox(key="choice of run").value == "two"
    assert open_page("run", {"run": "one"}).selectbox(key="choice of run").value == "one"


def test_runs_are_listed_searched_and_noted(open_page: Open, tmp_path: Path) -> None:
    draw_run(tmp_path / "outputs", "one")
    draw_run(tmp_path / "outputs", "two", age_s=10)
    app = open_page("runs")
    assert app.dataframe[0].value["name"].tolist() == ["one", "two"]
    app.text_input(key="search runs").set_value("tw").run()
    assert app.dataframe[0].value["name"].tolist() == ["two"]
    app.text_input(key="tags of two").set_value("wet, slope")
    app.text_area(key="note of two").set_value("second field")
    app.button[-1].click().run()
    assert not app.exception
    notes = json.loads((tmp_path / "outputs" / "two" / "notes.json").read_text())
    assert notes == {"tags": ["wet", "slope"], "note": "second field"}
    app.text_input(key="search runs").set_value("nothing").run()
    assert "Nothing found" in texts(app)


def shown(app: Any, place: int = 0) -> Any:
    """What stands in the cells of a table, which are sorted by their values."""
    from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df

    return convert_arrow_bytes_to_pandas_df(app.dataframe[place].proto.arrow_data.styler.display_values)


def test_columns_of_tables_sort_by_their_numbers_and_show_words(open_page: Open, tmp_path: Path) -> None:
    big = draw_run(tmp_path / "outputs", "big", epochs=12)
    (big / "train.log").write_bytes(b"x" * 2_000_000)
    draw_run(tmp_path / "outputs", "bare", epochs=0, age_s=100)
    draw_study(tmp_path / "outputs")
    runs = open_page("runs")
    values = runs.dataframe[0].value.set_index("name")
    assert values["size"].idxmax() == values["elapsed"].idxmax() == values["last sign"].idxmax() == "big"
    assert (values.loc["big", "epoch"], values.loc["big", "of"]) == (12, 12)
    assert shown(runs)["at epoch"].tolist() == ["12", "-"], "no 12.000000"
    assert [shown(runs)[name][0] for name in ("elapsed", "size")] == ["12m00", "2.1 MB"]
    for order, first in (("size", "big"), ("name", "bare"), ("best value", "big")):
        runs.selectbox(key="order of runs").set_value(order).run()
        assert runs.dataframe[0].value["name"][0] == first
    assert re.fullmatch(r"\dm\d\d ago", str(shown(runs)["last sign"][1]))
    study = open_page("studies")
    values = study.dataframe[0].value
    assert values.sort_values("lr")["trial"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert values["epoch"].max() == 9
    assert "6.31e-05" in shown(study)["lr"].tolist()
    checkpoints = open_page("checkpoints", {"run": "big"})
    assert checkpoints.dataframe[0].value["size"].tolist() == [2_000] * 14
    assert shown(checkpoints)["size"][0] == "2.0 kB"


def test_two_runs_are_compared(open_page: Open, tmp_path: Path) -> None:
    draw_run(tmp_path / "outputs", "a", lr=0.01)
    draw_run(tmp_path / "outputs", "b", lr=0.02, best=0.9)
    draw_run(tmp_path / "outputs", "bare", epochs=0)
    app = open_page("compare")
    metrics, settings = app.dataframe[0].value, app.dataframe[1].value
    assert set(metrics.columns) == {"a", "b"}
    assert metrics.loc["val/mAP_50", "b"] > metrics.loc["val/mAP_50", "a"]
    assert settings.loc["optimizer.lr"].to_dict() == {"a": "0.01", "b": "0.02"}
    row, styles = metrics.index.get_loc("val/mAP_50"), app.dataframe[0].proto.arrow_data.styler.styles
    marked = {name for name in ("a", "b") if f"row{row}_col{metrics.columns.get_loc(name)}" in styles}
    assert marked == {"b"}, "the better one"
    coordinates = next(line for one in figures(app) for line in one["data"] if line["type"] == "parcoords")
    assert [one["label"] for one in coordinates["dimensions"]] == ["run", "lr", "val/mAP_50"]
    app.multiselect[0].set_value(["a", "b", "bare"]).run()
    assert not app.exception
    assert "no completed epoch to compare" in texts(app)


def test_each_change_of_the_chosen_runs_is_kept(open_page: Open, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        draw_run(tmp_path / "outputs", name)
    app = open_page("compare")
    for wanted in (["a", "b", "c"], ["a", "b", "c", "d"], ["b", "d"]):
        app.multiselect[0].set_value(wanted).run()
        assert not app.exception
        assert app.multiselect[0].value == wanted
        assert set(app.dataframe[0].value.columns) == set(wanted)
    shutil.rmtree(tmp_path / "outputs" / "d")
    app.run()
    assert not app.exception
    assert app.multiselect[0].value == ["b"]


def test_checkpoints_are_listed_and_used(open_page: Open, tmp_path: Path) -> None:
    run = draw_run(tmp_path / "outputs", "one", epochs=2)
    (run / "checkpoints" / "checkpoint_epoch_1.pth").write_bytes(b"x" * 2_000)
    app = open_page("checkpoints")
    table = app.dataframe[0].value.set_index("checkpoint")
    assert table.loc["checkpoint_epoch_1.pth", "hash"] == "● damaged"
    assert table.loc["checkpoint_best.pth", "hash"] == "● intact"
    assert "checkpoint_epoch_1.pth" not in app.selectbox(key="checkpoint to use").options
    assert app.multiselect[0].options == ["checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"]
    assert any("evaluate --checkpoint" in code.value for code in app.code)


@pytest.mark.parametrize("view", ["Overview", "Curves", "Optuna", "Failed trials", "Repeats"])
@pytest.mark.parametrize("metrics", [1, 2])
def test_every_view_of_a_study(open_page: Open, tmp_path: Path, view: str, metrics: int) -> None:
    draw_study(tmp_path / "outputs", metrics=metrics)
    app = open_page("studies")
    app.segmented_control(key="view of study").set_value(view).run()
    assert not app.exception
    assert app.metric[0].value == "8 of 8"


def test_a_map_of_too_many_crowns_says_how_many_are_left_out(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cabruca.monitor.crowns.MOST_CROWNS", 20)
    draw_prediction(tmp_path / "outputs" / "many")
    app = open_page("crown_map")
    assert app.metric[0].value == "20"
    assert "The first 20 crowns are shown; 4 more are in the file" in texts(app)


def test_the_map_of_a_prediction_with_and_without_its_picture(open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "run" / "predictions"
    draw_prediction(folder)
    app = open_page("crown_map")
    assert app.metric[0].value == "24"
    assert app.dataframe[0].value.loc[0, ["image", "n_crowns"]].tolist() == ["plot_a.tif", 24], "a row a plot"
    assert {line["name"].split(" ")[0] for line in figures(app)[0]["data"] if line.get("name")} == {
        *("cacao_tree", "shade_tree"),
    }
    assert "more are in the file" not in texts(app)
    app.slider(key="score of map").set_value(0.9).run()
    assert int(app.metric[0].value) < 24
    shutil.move(folder / "plot_a.tif", tmp_path / "plot_a.tif")
    app.run()
    assert not app.exception
    assert "plot_a.tif" in app.text_input(key="folder of pictures").label
    (folder / "crowns.gpkg").write_text("no longer a GeoPackage")
    app.run()
    assert not app.exception
    assert "no GeoPackage" in texts(app)
