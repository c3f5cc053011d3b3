"""Samplers, schedulers, objectives and budgets of a study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_line import line_study, run, story
from study_tasks import SlowStart

from cabruca.errors import ConfigError
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import read

pytestmark = pytest.mark.usefixtures("cluster")

SHORT = {"max_epochs": 3, "num_trials": 4}


@pytest.mark.slow
def test_a_grid_is_walked_once(tmp_path: Path) -> None:
    space = {"optimizer.lr": {"choice": [0.001, 0.01, 0.1]}, "optimizer.type": {"choice": ["adam", "adamw"]}}
    study = line_study(
        tmp_path,
        search_space=space,
        sampler={"type": "grid"},
        scheduler={"type": "none"},
        max_epochs=1,
        num_trials=6,
        max_concurrent_trials=2,
    )
    assert run(study, dry=False).state == "finished"
    points = {(t["params"]["optimizer.lr"], t["params"]["optimizer.type"]) for t in story(study).values()}
    assert len(points) == 6


@pytest.mark.slow
def test_two_objectives_have_a_front(tmp_path: Path) -> None:
    study = line_study(
        tmp_path,
        metric=["val/mAP_50", "time/epoch_s"],
        mode=["max", "min"],
        scheduler={"type": "none"},
        sampler={"type": "nsga2", "seed": 1},
        **SHORT,
    )
    assert run(study, dry=False).state == "finished"
    state = read(StudyDir.of(study).results)
    assert {len(trial.values or ()) for trial in state.trials.values()} == {2}
    assert 1 <= len(state.front(study)) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hyperband", "median"])
def test_other_schedulers_stop_trials_too(tmp_path: Path, kind: str) -> None:
    points = [{"optimizer.lr": lr} for lr in (0.05, 0.04, 0.03, 1e-4, 2e-4, 3e-4)]
    settings = {"type": kind, "grace_period": 1, "min_samples": 2}
    study = line_study(tmp_path, points_to_evaluate=points, scheduler=settings)
    assert run(study, dry=False).state == "finished"
    told = story(study)
    assert [t["params"]["optimizer.lr"] for t in told.values()] == [p["optimizer.lr"] for p in points]
    assert told[0]["ends"][-1][0] == "finished"
    assert any(t["decided"] for t in told.values())


@pytest.mark.slow
def test_poor_trials_of_a_population_take_over_weights(tmp_path: Path) -> None:
    points = [{"optimizer.lr": lr} for lr in (0.05, 1e-4, 2e-4, 3e-4)]
    settings = {"type": "pbt", "perturbation_interval": 2}
    study = line_study(tmp_path, points_to_evaluate=points, scheduler=settings, num_trials=4, max_epochs=6)
    assert run(study, dry=False).state == "finished"
    state = read(StudyDir.of(study).results)
    told = [note for note in state.notes if "takes over the weights of trial 0 after epoch 2" in note]
    assert told
    taker = int(told[0].split()[1])
    values = story(study)[taker]["values"]
    assert list(values) == list(range(1, 7))
    assert values[3] > 2 * values[2], "it goes on from the good trial's weights"
    assert {trial["ends"][-1][0] for trial in story(study).values()} == {"finished"}


def test_a_population_needs_weights_that_fit(tmp_path: Path) -> None:
    space = {"model.fpn_channels": {"choice": [64, 128]}}
    study = line_study(tmp_path, search_space=space, scheduler={"type": "pbt"})
    with pytest.raises(ConfigError, match=r"pbt copies weights between trials, which model.fpn_channels would not"):
        run(study, dry=False)


def test_the_time_budget_ends_a_study_that_can_go_on(tmp_path: Path) -> None:
    study = line_study(tmp_path, time_budget=4, scheduler={"type": "none"}, num_trials=40, max_epochs=40)
    result = run(study, dry=False, trial=SlowStart)
    assert (result.state, result.exit_code) == ("stopped", 0)
    assert "time budget is used up" in result.message
    told = story(study)
    assert 0 < len(told) < 40
    assert next(reversed(told.values()))["ends"][-1][0] in ("interrupted", "finished")
    again = run(study, dry=False, trial=SlowStart)
    assert again.state == "stopped"
    assert len(story(study)) == len(told)


@pytest.mark.slow
def test_the_disk_budget_gives_up_checkpoints_and_then_ends_the_study(tmp_path: Path) -> None:
    free = line_study(tmp_path / "free", scheduler={"type": "none"}, **SHORT)
    run(free, dry=False)
    from cabruca.distributed.folder_sizes import bytes_of

    folder = StudyDir.of(free)
    sizes = [bytes_of(folder.trial_dir(n).path) for n in range(4)]
    study = line_study(tmp_path, scheduler={"type": "none"}, disk_budget=int(sum(sizes) * 0.6), **SHORT)
    result = run(study, dry=False)
    assert result.state == "stopped"
    assert "disk budget" in result.message
    assert 1 <= len(story(study)) < 4


def test_the_best_are_repeated_over_seeds(tmp_path: Path) -> None:
    study = line_study(tmp_path, repeat_best={"top": 2, "seeds": 2}, **SHORT)
    assert run(study, dry=False).state == "finished"
    folder = StudyDir.of(study)
    rows = json.loads(folder.repeats_json.read_text())["trials"]
    best = [trial.number for trial in read(folder.results).ranked(study)][:2]
    assert [row["trial"] for row in rows] == best
    for row in rows:
        assert len(set(row["values"])) == 2
        assert row["mean"] == pytest.approx(sum(row["values"]) / 2)
        assert row["deviation"] > 0
