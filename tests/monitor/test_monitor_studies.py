"""Studies and predictions as the monitor reads them: journal, rungs, autopsies, Optuna's figures, crowns."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from monitor_files import draw_prediction, draw_study, end_of

from cabruca.errors import CabrucaError, DataError, RunError
from cabruca.monitor.crowns import find_picture, overview, predictions_of, read_prediction, rings_px
from cabruca.monitor.map_figure import map_figure
from cabruca.monitor.optuna_figures import FIGURES, draw, open_study, titles_for, told_of
from cabruca.monitor.studies import StudyShelf, autopsies_of, leaderboard, repeats_of, rungs_of, spared
from cabruca.monitor.study_figures import rung_bars, trial_curves, trials_by_state
from cabruca.study_report.evaluator import evaluator


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    draw_study(folder, "drawn", trials=8)
    draw_study(folder, "two", trials=6, metrics=2)
    return folder


def test_a_study_is_read_from_its_journal(outputs: Path) -> None:
    look = StudyShelf(outputs).open("studies/drawn")
    assert (look.driver, look.go_on) == ("finished", None)
    rows = leaderboard(look)
    assert rows[0]["trial"] == 5  # of those that ran to the end the one with the highest value
    assert rows[-1]["state"] == "● failed"
    assert rows[0]["lr"] == pytest.approx(1e-3)
    assert 0 < spared(look).share < 1
    assert repeats_of(look) == []


def test_rungs_count_who_came_who_stopped_and_who_went_on(outputs: Path) -> None:
    look = StudyShelf(outputs).open("studies/drawn")
    ends = [end_of(number) for number in range(8)]
    for rung in rungs_of(look.study, look.state):
        assert rung.reached == sum(epochs >= rung.epoch for _, epochs in ends)
        assert rung.stopped == sum(end == ("stopped", rung.epoch) for end in ends)
        assert (rung.on, rung.under) == (rung.reached - rung.stopped, 0)
    assert [rung.epoch for rung in rungs_of(look.study, look.state)] == [1, 3]
    assert rungs_of(StudyShelf(outputs).open("studies/two").study, look.state) == []


def test_a_failed_trial_has_an_autopsy(outputs: Path) -> None:
    (one,) = autopsies_of(StudyShelf(outputs).open("studies/drawn"))
    assert (one.trial, one.reason, one.epoch) == (2, "RuntimeError: out of luck", 2)
    assert one.memory == "0.88 GB of the process"
    assert one.differs == {"optimizer.lr": ("0.0001", "0.002")}


def test_curves_fade_what_was_stopped_and_mark_the_best(outputs: Path) -> None:
    look = StudyShelf(outputs).open("studies/drawn")
    lines = {line.name: line for line in trial_curves(look.study, look.state, "val/mAP_50").data}
    assert lines["trial 5 (finished, best)"].line.width > lines["trial 1 (finished)"].line.width
    assert lines["trial 0 (stopped)"].line.color.endswith("0.45)")
    assert lines["trial 2 (failed)"].line.dash == "dash"
    assert dict(zip(*[trials_by_state(look.state).data[0][axis] for axis in "yx"], strict=True)) == {
        **{"finished": 2, "stopped": 5, "failed": 1},
    }
    assert len(rung_bars(rungs_of(look.study, look.state)).data) == 3


@pytest.mark.parametrize("title", [title for title in FIGURES if title != "Pareto front"])
def test_optuna_draws_its_figures(outputs: Path, title: str) -> None:
    look = StudyShelf(outputs).open("studies/drawn")
    own = open_study(look.folder.optuna_db, look.study.config.name)
    assert title in titles_for(own)
    assert len(draw(own, title, look.study.metrics).data) > 0


def test_importance_counts_what_was_stopped_and_each_figure_says_what_it_is_of(outputs: Path) -> None:
    look = StudyShelf(outputs).open("studies/drawn")
    own = open_study(look.folder.optuna_db, "drawn")
    assert told_of(own, "Slice") == "Of 2 trials that ran to their end; 5 stopped early are left out."
    assert told_of(own, "Importance").startswith("Of 2 trials that ran to their end and 5 stopped early")
    assert told_of(own, "Timeline") == "Of all trials."
    evaluated: list[int] = []
    judge = evaluator()[1]
    real = judge.evaluate

    def counted(study: optuna.Study, *rest: object, **more: Any) -> dict[str, float]:
        evaluated.append(len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))))
        return real(study, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(judge), "evaluate", lambda _, *rest, **more: counted(*rest, **more))
        draw(own, "Importance", look.study.metrics)
    assert evaluated == [7]


def test_several_metrics_have_a_front_and_each_its_figures(outputs: Path) -> None:
    look = StudyShelf(outputs).open("studies/two")
    own = open_study(look.folder.optuna_db, "two")
    for title in titles_for(own):
        assert len(draw(own, title, look.study.metrics, 1).data) > 0, title
    assert "Pareto front" in titles_for(own)


@pytest.mark.parametrize("by", ["fANOVA", "PED-ANOVA"])
def test_importance_says_whose_it_is_and_which_way_is_better(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "PED-ANOVA":
        monkeypatch.setattr("optuna.importance.FanovaImportanceEvaluator", _missing)
    own = optuna.create_study(directions=["minimize", "maximize"])
    for n in range(60):  # good where a is high, bad where b is low
        drawn = {"a": (n * 7 % 60) / 60, "b": (n * 11 % 60) / 60}
        value = 10.0 * (drawn["a"] > 0.9) - 20.0 * (drawn["b"] < 0.1) + 0.01 * drawn["a"]
        ways = dict.fromkeys(drawn, optuna.distributions.FloatDistribution(0, 1))
        own.add_trial(optuna.trial.create_trial(values=[-value, value], params=drawn, distributions=ways))
    for of in (0, 1):
        figure = draw(own, "Importance", ["val/error", "val/mAP_50"], of)
        assert by in figure.layout.xaxis.title.text
        assert figure.data[0].y[-1] == ("a" if by == "PED-ANOVA" else "b"), "best trials; all differences"


def _missing(**_: object) -> None:
    raise ImportError("Tried to import 'sklearn'")


def test_optuna_s_file_is_not_written_to(outputs: Path) -> None:
    path = StudyShelf(outputs).open("studies/drawn").folder.optuna_db
    before = path.read_bytes(), path.stat().st_mtime_ns
    writer = sqlite3.connect(path)
    writer.execute("BEGIN IMMEDIATE")  # a driver at work
    draw(open_study(path, "drawn"), "History", ["val/mAP_50"])
    writer.rollback()
    writer.close()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [one.name for one in path.parent.glob("optuna.db*")] == ["optuna.db"]


@pytest.mark.parametrize("content", [None, b"", b"no database at all"])
def test_a_storage_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "optuna.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError) as error:
        open_study(path, "drawn")
    assert "\n" not in str(error.value)
    assert path.exists() == (content is not None), "looking makes no file"


def test_a_study_without_trials_has_no_figures_yet(tmp_path: Path) -> None:
    folder = draw_study(tmp_path, trials=0)
    look = StudyShelf(tmp_path).open("studies/drawn")
    assert leaderboard(look) == []
    own = open_study(folder.optuna_db, "drawn")
    for title in titles_for(own):
        if title != "Timeline":
            with pytest.raises(RunError, match="No trial has ended"):
                draw(own, title, look.study.metrics)


def test_a_torn_or_broken_journal(tmp_path: Path) -> None:
    folder = draw_study(tmp_path, trials=2)
    with folder.results.open("a") as file:
        file.write('{"event": "asked", "tri')
    assert len(leaderboard(StudyShelf(tmp_path).open("studies/drawn"))) == 2
    with folder.results.open("a") as file:
        file.write("\n")
    with pytest.raises(CabrucaError, match="no event of a study"):
        StudyShelf(tmp_path).open("studies/drawn")


def test_crowns_lie_over_their_picture(tmp_path: Path) -> None:
    path = draw_prediction(tmp_path / "run" / "predictions")
    assert predictions_of(tmp_path) == ["run/predictions/crowns.gpkg"]
    crowns = read_prediction(tmp_path, "run/predictions/crowns.gpkg")
    assert crowns.images == ["plot_a.tif"]
    assert set(crowns.classes) == {"cacao_tree", "shade_tree"}
    assert crowns.plots[0]["n_crowns"] == 24
    assert crowns.plots[0]["canopy_cover"] is None
    found = find_picture("plot_a.tif", [path.parent])
    assert found == path.parent / "plot_a.tif"
    picture = overview(found, 200)
    assert picture.rgb.shape == (200, 200, 3)
    rings, _ = rings_px(crowns.geometries, picture)
    for ring in rings:  # each crown was painted green where its outline now lies
        x, y = (ring.mean(axis=0) / 2).astype(int)
        assert picture.rgb[y, x, 1] > 150
    chosen = crowns.where("plot_a.tif", ["cacao_tree"], 0.7)
    scores, classes = crowns.columns["score"].astype(float), crowns.columns["class"].astype(str)
    assert chosen.sum() == ((scores >= 0.7) & (classes == "cacao_tree")).sum() > 0
    names = [line.name for line in map_figure(crowns, chosen, picture).data if line.name]
    assert names == [f"cacao_tree ({chosen.sum()})"]
    assert map_figure(crowns, chosen, None).layout.images == ()


def test_only_geopackages_are_opened_and_only_inside(tmp_path: Path) -> None:
    draw_prediction(tmp_path)
    (tmp_path / "fake.gpkg").write_text("<OGRVRTDataSource></OGRVRTDataSource>")
    with pytest.raises(DataError, match="no GeoPackage, whatever its name"):
        read_prediction(tmp_path, "fake.gpkg")
    with pytest.raises(RunError, match="leaves the outputs folder"):
        read_prediction(tmp_path / "inner", "../crowns.gpkg")
    with sqlite3.connect(tmp_path / "other.gpkg") as other:
        other.execute("PRAGMA application_id = 1196444487")  # GPKG
        other.execute("CREATE TABLE t (a)")
    with pytest.raises(DataError, match="cannot be read as a prediction"):
        read_prediction(tmp_path, "other.gpkg")


@pytest.mark.parametrize("image", ["../secret.tif", "https://host/a.tif", "/vsicurl/x", "absent.tif"])
def test_a_picture_s_name_leads_nowhere_else(tmp_path: Path, image: str) -> None:
    (tmp_path / "folder").mkdir()
    assert find_picture(image, [tmp_path / "folder"]) is None
    (tmp_path / "secret.tif").write_bytes(b"II*")
    assert find_picture(str(tmp_path / "secret.tif"), [tmp_path / "folder"]) is None


def test_a_float_picture_with_nodata_is_stretched(tmp_path: Path) -> None:
    import rasterio

    kept = {"driver": "GTiff", "height": 50, "width": 80, "count": 1, "dtype": "float32", "nodata": -1.0}
    values = np.linspace(0, 4_000, 4_000, dtype=np.float32).reshape(50, 80)
    values[0] = -1.0
    with rasterio.open(tmp_path / "a.tif", "w", **kept) as file:
        file.write(values, 1)
    rgb = overview(tmp_path / "a.tif").rgb
    assert (rgb[0] == 255).all()
    assert rgb[1:].min() == 0
    assert rgb[1, 40, 0] < rgb[25, 40, 0] < rgb[49, 40, 0]
