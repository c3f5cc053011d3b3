"""Optuna's file follows the journal: what it lacks, wherever it was lost, is written into it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.trial import TrialState
from study_books_line import session
from study_line import line_study, story

from cabruca.config.study import Study
from cabruca.distributed.study_storage import open_storage
from cabruca.tracking.study_dir import StudyDir

KEYS: dict[str, Any] = {"scheduler": {"type": "none"}, "max_epochs": 2, "max_concurrent_trials": 2}


def space(*types: str) -> dict[str, Any]:
    return {
        "optimizer.type": {"choice": list(types)},
        "optimizer.lr": {"loguniform": [1e-4, 0.3]},
        "optimizer.weight_decay": {"quniform": [0.0, 0.3, 0.1]},
        "scheduler.T_max": {"int": [1, 9]},
    }


def work(study: Study, monkeypatch: pytest.MonkeyPatch, trials: int) -> list[int]:
    """One trial after the other; the numbers that were given out."""
    given = []
    with session(study, monkeypatch) as driver:
        for _ in range(trials):
            number = driver.begin()
            assert number is not None
            for epoch in (1, 2):
                driver.report(number, epoch, epoch / (2.0 + number))
            driver.end(number, "finished", 2)
            given.append(number)
    return given


def in_optuna(study: Study) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{StudyDir.of(study).optuna_db}"
    return optuna.load_study(study_name=max(optuna.get_all_study_names(storage)), storage=storage).trials


def facts(study: Study) -> list[Any]:
    return [(t.number, t.state, t.values, t.params, t.distributions, t.intermediate_values) for t in in_optuna(study)]


def test_a_lost_file_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = line_study(tmp_path / "calm", search_space=space("adam", "sgd"), num_trials=14, **KEYS)
    study = line_study(tmp_path / "lost", search_space=space("adam", "sgd"), num_trials=14, **KEYS)
    assert work(calm, monkeypatch, 14) == list(range(14))
    work(study, monkeypatch, 12)
    before = facts(study)
    StudyDir.of(study).optuna_db.unlink()
    assert work(study, monkeypatch, 0) == []
    assert facts(study) == before
    assert work(study, monkeypatch, 2) == [12, 13]
    assert story(study) == story(calm)


def test_a_kill_while_a_wider_study_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = line_study(tmp_path, search_space=space("adam", "sgd"), num_trials=4, **KEYS)
    work(narrow, monkeypatch, 4)
    wide = line_study(tmp_path, search_space=space("adam", "adamw", "sgd"), num_trials=6, **KEYS)
    add = optuna.Study.add_trial
    done: list[Any] = []

    def killed(self: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(trial)
        add(self, trial)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            work(wide, monkeypatch, 0)
    assert len(in_optuna(wide)) == 2
    assert work(wide, monkeypatch, 2) == [4, 5]
    trials, told = in_optuna(wide), story(wide)
    assert [t.number for t in trials] == list(range(6))
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    for trial in trials:
        assert trial.params == pytest.approx(told[trial.number]["params"])
        assert trial.values == told[trial.number]["ends"][0][2]
        there = optuna.distributions.CategoricalDistribution(("adam", "adamw", "sgd"))
        assert trial.distributions["optimizer.type"] == there


def damage(path: Path, how: str) -> None:
    """As a power cut may leave it."""
    if how == "zeros within":
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 3)
            file.write(bytes(path.stat().st_size // 3))
    elif how == "no database":
        path.write_bytes(b"\x01" * 5000)
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("how", ["zeros within", "no database", "half of it"])
def test_a_damaged_file_is_set_aside_and_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    study = line_study(tmp_path, search_space=space("adam", "sgd"), num_trials=14, **KEYS)
    work(study, monkeypatch, 3)
    before, path = facts(study), StudyDir.of(study).optuna_db
    damage(path, how)
    damaged = path.read_bytes()
    assert work(study, monkeypatch, 1) == [3]
    assert facts(study)[:3] == before
    assert path.with_name("optuna.db.damaged").read_bytes() == damaged


def test_nobody_waits_for_the_disk(tmp_path: Path) -> None:
    """The journal is what a power cut must not take."""
    storage: Any = open_storage(tmp_path / "optuna.db")
    with storage._file._backend.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 0


def test_optuna_dashboard_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the driver has it open, too."""
    optuna_dashboard = pytest.importorskip("optuna_dashboard")
    study = line_study(tmp_path, search_space=space("adam", "sgd"), num_trials=14, **KEYS)
    with session(study, monkeypatch) as driver:
        number = driver.begin()
        driver.report(number, 1, 0.25)
        app = optuna_dashboard.wsgi(f"sqlite:///{StudyDir.of(study).optuna_db}")
        (told,) = ask(app, "/api/studies")["study_summaries"]
        assert told["study_name"] == "line"
        (trial,) = ask(app, f"/api/studies/{told['study_id']}?after=0")["trials"]
    assert (trial["number"], trial["state"]) == (0, "Running")
    assert [(value["step"], value["value"]) for value in trial["intermediate_values"]] == [(1, 0.25)]
    assert {param["name"] for param in trial["params"]} == set(space())


def ask(app: Any, path: str) -> Any:
    """What a page of the dashboard is told."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ["PATH_INFO"], _, environ["QUERY_STRING"] = path.partition("?")
    return json.loads(b"".join(app(environ, lambda status, headers, fault=None: None)))
