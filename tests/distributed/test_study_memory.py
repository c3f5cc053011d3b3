"""Optuna's storage of the driver: what it remembers is what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from cabruca.config.search_space import parse_space
from cabruca.distributed.study_memory import RememberedStorage
from cabruca.distributed.study_sampler import make_sampler

SPACE = parse_space(
    {
        "optimizer.type": {"choice": ["adamw", "sgd"]},
        "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
        "optimizer.momentum": {"when": {"optimizer.type": "sgd"}, "uniform": [0.8, 0.99]},
    }
)


def a_file(folder: Path) -> RDBStorage:
    return RDBStorage(f"sqlite:///{folder / 'optuna.db'}")


def a_study(storage: Any, sampler: str = "tpe") -> optuna.Study:
    made = make_sampler(sampler, 1, SPACE, many=True)
    return optuna.create_study(storage=storage, study_name="s", direction="maximize", sampler=made, load_if_exists=True)


def work(study: optuna.Study, trials: int) -> None:
    """Three trials at a time; every third is pruned, every fifth fails, one is enqueued."""
    study.enqueue_trial({"optimizer.type": "sgd", "optimizer.lr": 0.05}, user_attrs={"retry_of": 3})
    live = []
    for _ in range(trials):
        trial = study.ask()
        SPACE.suggest(trial)
        live.append(trial)
        if len(live) == 3:
            done = live.pop(0)
            done.report(done.params["optimizer.lr"], 1)
            if done.number % 5 == 4:
                study.tell(done.number, state=TrialState.FAIL)
            elif done.number % 3:
                study.tell(done.number, done.params["optimizer.lr"])
            else:
                study.tell(done.number, state=TrialState.PRUNED)


def facts(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    names = ("number", "_trial_id", "state", "values", "params", "distributions", "intermediate_values")
    return [(*(getattr(t, name) for name in names), t.user_attrs, t.system_attrs) for t in trials]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "nsga2"])
def test_it_asks_and_keeps_what_the_file_alone_would(tmp_path: Path, sampler: str) -> None:
    (tmp_path / "plain").mkdir()
    plain = a_study(a_file(tmp_path / "plain"), sampler)
    work(plain, 20)
    remembered = a_study(RememberedStorage(a_file(tmp_path)), sampler)
    work(remembered, 20)
    assert facts(remembered.trials) == facts(plain.trials)
    assert facts(optuna.load_study(study_name="s", storage=a_file(tmp_path)).trials) == facts(plain.trials)


def test_a_draft_is_written_down_whole(tmp_path: Path) -> None:
    storage = RememberedStorage(a_file(tmp_path))
    study = a_study(storage)
    SPACE.suggest(study.ask())

    def in_file() -> list[FrozenTrial]:
        return optuna.load_study(study_name="s", storage=a_file(tmp_path)).trials

    assert in_file() == []
    storage.keep()
    assert facts(in_file()) == facts(study.trials)
    assert set(in_file()[0].params) >= {"optimizer.type", "optimizer.lr"}
    again = a_study(RememberedStorage(a_file(tmp_path)))  # killed before the next draft was written: it is asked again
    first, second = study.ask(), again.ask()
    assert SPACE.suggest(first) == SPACE.suggest(second)
    assert first.number == second.number == 1


def test_another_driver_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    work(a_study(RememberedStorage(a_file(tmp_path))), 7)
    again = a_study(RememberedStorage(a_file(tmp_path)))
    running = [trial for trial in again.trials if trial.state == TrialState.RUNNING]
    assert len(running) == 2
    again.tell(running[0].number, 0.5)
    work(again, 3)
    assert facts(again.trials) == facts(optuna.load_study(study_name="s", storage=a_file(tmp_path)).trials)


def test_what_the_file_refuses_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = a_file(tmp_path)
    study = a_study(RememberedStorage(file))
    trial = study.ask()
    SPACE.suggest(trial)
    before = facts(study.trials)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("the disk is full")

    for name in ("set_trial_state_values", "set_trial_intermediate_value", "set_trial_user_attr", "_create_new_trial"):
        monkeypatch.setattr(file, name, refuse)
    actions = (
        lambda: study.tell(0, 1.0),
        lambda: trial.report(0.5, 1),
        lambda: trial.set_user_attr("a", 1),
        study.ask,
    )
    for action in actions:
        with pytest.raises(OSError, match="disk is full"):
            action()
    assert facts(study.trials) == before


def test_a_trial_that_was_handed_out_does_not_change_under_the_reader(tmp_path: Path) -> None:
    study = a_study(RememberedStorage(a_file(tmp_path)))
    trial = study.ask()
    (seen,) = study.get_trials(deepcopy=False)
    SPACE.suggest(trial)
    study.tell(0, 1.0)
    assert (seen.state, seen.params, seen.values) == (TrialState.RUNNING, {}, None)
