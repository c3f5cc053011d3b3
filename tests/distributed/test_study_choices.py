"""Every sampler over every kind of parameter, every scheduler, and a driver that is killed half way; without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_books_line import Session, session
from study_line import line_study, story

from cabruca.config.study import Study

SPACE: dict[str, Any] = {
    "optimizer.type": {"choice": ["adamw", "sgd"]},
    "optimizer.lr": {"loguniform": [1e-4, 0.3]},
    "optimizer.weight_decay": {"uniform": [0.0, 0.1]},
    "optimizer.momentum": {"when": {"optimizer.type": "sgd"}, "quniform": [0.8, 0.95, 0.05]},
    "scheduler.warmup_steps": {"int": [0, 7]},
    "data.overlap": {"qint": [0, 64, 16]},
}
TRIALS = 13
"""More than the ten with which gp and tpe begin at random."""


def go_on(driver: Session, epochs: int, most: int | None = None) -> None:
    """Train what is left, or `most` trials of it, one after the other: the nearer to a rate of 0.05, the better."""
    while (most is None or most > 0) and (number := driver.begin()) is not None:
        params = driver.books.state.trials[number].params
        end, state = epochs, "finished"
        for epoch in range(1, epochs + 1):
            value = 0.01 * epoch - abs(params["optimizer.lr"] - 0.05)
            if driver.report(number, epoch, value) is not None:
                end, state = epoch, "stopped"
                break
        driver.end(number, state, end)
        most = None if most is None else most - 1


def whole_and_killed(folder: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, **keys: Any) -> tuple[Study, Study]:
    """The same study run by one driver, and by two, of which the first leaves after half of the trials."""
    whole, killed = (line_study(folder / name, max_epochs=epochs, **keys) for name in ("whole", "killed"))
    with session(whole, monkeypatch) as driver:
        go_on(driver, epochs)
    with session(killed, monkeypatch) as driver:
        go_on(driver, epochs, whole.config.num_trials // 2)
    with session(killed, monkeypatch) as driver:
        go_on(driver, epochs)
    return whole, killed


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow), "random", "nsga2"])
def test_a_sampler_draws_every_kind_and_the_same_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    keys: dict[str, Any] = {"search_space": SPACE, "scheduler": {"type": "none"}, "num_trials": TRIALS}
    study, killed = whole_and_killed(tmp_path, monkeypatch, 1, sampler={"type": sampler, "seed": 2}, **keys)
    told = story(study)
    assert len(told) == TRIALS
    for trial in told.values():
        assert trial["ends"][-1][0] == "finished", "the schema took what was drawn"
        assert ("optimizer.momentum" in trial["params"]) == (trial["params"]["optimizer.type"] == "sgd")
        assert all(study.space[key].holds(value) for key, value in trial["params"].items())
    for key in SPACE:
        assert len({trial["params"].get(key) for trial in told.values()}) > 1, f"{key} is never another"
    assert story(killed) == told


@pytest.mark.parametrize(
    ("kind", "rungs"), [("asha", {1, 3}), ("hyperband", {1, 3}), ("median", {1, 2, 3}), ("none", set())]
)
def test_a_scheduler_stops_the_poor_and_the_same_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, rungs: set[int]
) -> None:
    rates = [0.05, 0.049, 0.06, 0.3, 0.29, 0.28, 0.27, 0.26]
    keys: dict[str, Any] = {
        "points_to_evaluate": [{"optimizer.lr": rate} for rate in rates],
        "scheduler": {"type": kind, "grace_period": 1, "min_samples": 2},
        "num_trials": len(rates),
    }
    study, killed = whole_and_killed(tmp_path, monkeypatch, 9, **keys)
    told = story(study)
    assert [trial["params"]["optimizer.lr"] for trial in told.values()] == rates
    assert told[0]["ends"][-1][0] == "finished"
    stopped = {number: trial["decided"] for number, trial in told.items() if trial["decided"]}
    assert bool(stopped) == bool(rungs)
    assert {rung for _, rung in stopped.values()} <= rungs
    assert 0 not in stopped
    assert any(number >= 3 for number in stopped) == bool(rungs), "the poor ones"
    assert story(killed) == told
