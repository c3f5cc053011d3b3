"""Which trial is best, in which order they stand, and which form the Pareto front."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from study_files import StudyFiles

from cabruca.config.study import Study
from cabruca.tracking.study_state import Result, StudyState, TrialState


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return StudyFiles(tmp_path)(metric="val/x", mode="max")


@pytest.fixture
def falling(tmp_path: Path) -> Study:
    return StudyFiles(tmp_path)(metric="val/x", mode="min")


@pytest.fixture
def two(tmp_path: Path) -> Study:
    return StudyFiles(tmp_path)(metric=["val/x", "val/y"], mode=["max", "min"], scheduler={"type": "none"})


def trial(number: int, *values: float | tuple[float, ...] | None, state: str = "finished") -> TrialState:
    """A trial whose epochs found these values of x, or of x and y; None: nothing."""
    found = TrialState(number, {}, state=state)  # type: ignore[arg-type]
    for epoch, value in enumerate(values, start=1):
        numbers = () if value is None else value if isinstance(value, tuple) else (value,)
        found.add(Result(epoch, epoch, dict(zip(("val/x", "val/y"), numbers, strict=False))))
    return found


def state(*trials: TrialState) -> StudyState:
    return StudyState({one.number: one for one in trials})


def test_the_value_of_a_trial_is_that_of_its_best_epoch(study: Study, falling: Study) -> None:
    one = trial(0, 0.2, 0.9, None, 0.9, 0.5)
    best = one.best(study)
    assert best is not None
    assert (best.value, best.values, best.epoch) == (0.9, (0.9,), 2)  # the first of equal ones
    least = one.best(falling)
    assert least is not None
    assert (least.value, least.epoch) == (0.2, 1)
    assert trial(1, None).best(study) is None


def test_a_new_epoch_is_seen(study: Study) -> None:
    one = trial(0, 0.2)
    assert one.best(study) is not None
    one.add(Result(2, 2, {"val/x": 0.3}))
    best = one.best(study)
    assert best is not None
    assert best.value == 0.3


def test_ranked_is_best_first_then_without_value_then_failed(study: Study, falling: Study) -> None:
    trials = [trial(0, 0.2), trial(1, 0.9, state="failed"), trial(2), trial(3, 0.5, state="running"), trial(4, 0.5)]
    for order in itertools.permutations(trials):
        assert [t.number for t in state(*order).ranked(study)] == [3, 4, 0, 2, 1]
        assert [t.number for t in state(*order).ranked(falling)] == [0, 3, 4, 2, 1]
        best = state(*order).best(study)
        assert best is not None
        assert best.number == 3


def test_nothing_is_best_where_nothing_has_a_value(study: Study) -> None:
    assert state().best(study) is None
    assert state(trial(0), trial(1, 0.5, state="failed")).best(study) is None


def test_of_several_metrics_the_first_decides_the_epoch_and_both_values_are_of_it(two: Study) -> None:
    best = trial(0, (0.5, 0.1), (0.8, 9.0), (0.9,)).best(two)  # the last epoch lacks y
    assert best is not None
    assert (best.values, best.epoch) == ((0.8, 9.0), 2)


def test_the_front_is_what_no_other_beats(two: Study) -> None:
    trials = state(
        trial(0, (0.9, 5.0)),
        trial(1, (0.5, 1.0)),
        trial(2, (0.5, 2.0)),  # beaten by 1 in y, equal in x
        trial(3, (0.7, 5.0)),  # beaten by 0 in x, equal in y
        trial(4, (0.7, 3.0)),
        trial(5, (0.99, 0.1), state="failed"),
        trial(6, (0.7, 3.0)),  # equal to 4: neither beats the other
    )
    assert [t.number for t in trials.front(two)] == [0, 4, 6, 1]


def test_the_front_of_one_metric_is_the_best_trials(study: Study) -> None:
    assert [t.number for t in state(trial(0, 0.2), trial(1, 0.7), trial(2, 0.7)).front(study)] == [1, 2]
    assert state().front(study) == []
