"""Points of a grid, points that somebody names, repetitions: each is tried once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from study_books_line import session
from study_line import line_study, story

from cabruca.config.study import Study

KEYS: dict[str, Any] = {"scheduler": {"type": "none"}, "max_epochs": 1}


def work(study: Study, monkeypatch: pytest.MonkeyPatch, state: str = "finished") -> None:
    """Every trial that is left, one after the other."""
    with session(study, monkeypatch) as driver:
        while (number := driver.begin()) is not None:
            driver.report(number, 1, 0.5)
            driver.end(number, state, 1)


def rates(study: Study) -> list[float]:
    return [trial["params"]["optimizer.lr"] for trial in story(study).values()]


def grid(folder: Path, rates: list[float], **keys: Any) -> Study:
    space = {"optimizer.lr": {"choice": rates}}
    return line_study(folder, search_space=space, sampler={"type": "grid", "seed": 3}, **KEYS, **keys)


def test_a_grid_beside_points_and_widened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = [0.1, 0.2, 0.3, 0.4], [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    points = [{"optimizer.lr": lr} for lr in (0.3, 0.1)]
    study = grid(tmp_path, few, num_trials=6, points_to_evaluate=points)
    work(study, monkeypatch)
    assert rates(study)[:2] == [0.3, 0.1]
    assert sorted(rates(study)) == few
    wide = grid(tmp_path, many, num_trials=8)
    work(wide, monkeypatch)
    assert sorted(rates(wide)) == many


def test_points_that_are_added_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work(line_study(tmp_path, num_trials=2, points_to_evaluate=[{"optimizer.lr": 0.01}], **KEYS), monkeypatch)
    points = [{"optimizer.lr": lr} for lr in (0.01, 0.02, 0.02, 0.03)]
    longer = line_study(tmp_path, num_trials=6, points_to_evaluate=points, **KEYS)
    work(longer, monkeypatch)
    assert rates(longer)[0] == 0.01
    assert rates(longer)[2:5] == [0.02, 0.02, 0.03]
    assert rates(longer)[5] not in (0.01, 0.02, 0.03)


def test_a_repetition_outlives_a_kill_before_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = line_study(tmp_path, num_trials=2, **KEYS)
    work(study, monkeypatch, "failed")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, session(study, monkeypatch) as driver:
        driver.search.retry([0, 1])
        patch.setattr(optuna.Study, "ask", killed)
        with pytest.raises(KeyboardInterrupt):
            driver.begin()
    with session(study, monkeypatch) as driver:
        driver.search.retry([0, 1])
        while (number := driver.begin()) is not None:
            driver.end(number, "failed", 0)
        retried = [t.retry_of for t in driver.books.state.trials.values()]
    assert retried == [None, None, 0, 1]
    told = story(study)
    assert [told[2]["params"], told[3]["params"]] == [told[0]["params"], told[1]["params"]]
