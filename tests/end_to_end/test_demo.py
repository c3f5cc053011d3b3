"""`cabruca demo`, made small: what it writes, what it says, and that a network that has not learnt fails it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_study import METRIC, result

from cabruca import demo, demo_study
from cabruca.config.load import to_yaml
from cabruca.config.study import best_config, load_study
from cabruca.config.views import differences
from cabruca.data.synthetic import draw_plot
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PLOT_PX", 384)
    monkeypatch.setattr(demo, "EPOCHS", 2)
    monkeypatch.setattr(demo, "WINDOWS", 4)


@pytest.mark.usefixtures("small")
def test_demo_writes_summary_and_pictures_and_says_what_next_and_one_that_has_not_learnt_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as easy:
        easy.setattr(demo, "FLOORS", dict.fromkeys(demo.FLOORS, 0.0))
        assert demo.run_demo(tmp_path, seed=0, quiet=False, trials=0) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary) == {"epochs", "segm_mAP_50", "total_count_accuracy", "canopy_iou", "seconds"}
    assert summary["epochs"] == 2
    assert 0 < summary["seconds"] < 300
    assert 0 < summary["canopy_iou"] < 1
    assert list((tmp_path / "pictures").glob("val_*.png"))
    said = capsys.readouterr().out
    assert "EPSG:31984" in said
    steps = said.split("next:")[1].strip().splitlines()
    assert [any(word in line for word in (" evaluate ", " train ", "tensorboard --logdir")) for line in steps] == [
        True
    ] * 3
    for line in steps:
        paths = [w for w in line.split() if str(tmp_path) in w]
        assert paths
        assert all(Path(p).exists() for p in paths)

    # a second demo beside the first, nothing is in its way
    assert demo.run_demo(tmp_path, seed=0, quiet=True, trials=0) == 1
    told = capsys.readouterr()
    assert "segm_mAP_50" in told.err
    assert "under the floor" in told.err
    assert "canopy_iou" in told.out, "the numbers are printed, also under --quiet"
    assert len(list(tmp_path.glob("cabruca_*"))) == 2


def test_the_study_is_judged_on_ground_of_its_own_and_the_winner_trains_at_the_demo_s_length(tmp_path: Path) -> None:
    plot, judge = draw_plot(tmp_path / "plot", size_px=256), draw_plot(tmp_path / "judge", size_px=256, seed=1)
    base = demo.demo_config(plot, tmp_path, 0)
    path = demo_study.write_study(base, judge, tmp_path / "study", name="practice_1", trials=6, seed=0)
    study = load_study(path)
    assert study.base.data.train_annotations == str(plot.train_annotations)
    assert study.base.data.val_annotations == str(judge.train_annotations)
    assert (study.config.num_trials, study.config.scheduler.type, study.max_epochs) == (6, "asha", 4)
    assert StudyDir.of(study).path == tmp_path / "studies" / "practice_1"
    first = study.space.point(study.config.points_to_evaluate[0])
    assert first == {"optimizer.lr": base.optimizer.lr, "optimizer.weight_decay": base.optimizer.weight_decay}

    folder = StudyDir.create(study)
    params = {"optimizer.lr": 1e-3, "optimizer.weight_decay": 0.05}
    journal = Journal(folder.results)
    journal.append({"event": "asked", "trial": 0, "params": params})
    journal.append(result(0, 1, {METRIC: 0.4}))
    folder.best_config.write_text(to_yaml(best_config(study, params)))
    found = demo_study.Searched(study, folder, 0)
    changed = differences(base, demo_study.winner(found, base))
    assert {key: pair[1] for key, pair in changed.items()} == {**params, "tracking.mlflow": True}
    assert "best 0.4 (trial 0)" in found.board()
