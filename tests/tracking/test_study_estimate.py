"""What a study will cost, reckoned by hand beside it; and what is refused for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_files import StudyFiles

from cabruca.config.study import Study
from cabruca.errors import ConfigError
from cabruca.tracking.study_asha import expected_epochs
from cabruca.tracking.study_estimate import DryEpoch, estimate
from cabruca.tracking.study_words import duration, size

METRICS = {"val/mAP_50": 0.1, "val/mAP": 0.05, "val/total_loss": 3.0, "val/species/x": 1.0, "val/gone": float("nan")}
DRY = DryEpoch(seconds=30.0, startup_s=6.0, bytes_=60, memory_mb=1500.0, metrics=METRICS, checkpoint_bytes=50)
PLENTY, RAM = 10**12, 4 * 2**30


@pytest.fixture
def make(tmp_path: Path) -> StudyFiles:
    return StudyFiles(tmp_path)


def without(make: StudyFiles, **keys: Any) -> Study:
    return make(scheduler={"type": "none"}, **keys)


def test_time_is_every_round_of_trials(make: StudyFiles) -> None:
    found = estimate(without(make, num_trials=5, max_epochs=4, max_concurrent_trials=2), DRY, PLENTY, RAM)
    assert found.worst_s == 3 * (6 + 4 * 30)  # the fifth trial is alone
    assert found.expected_s is None
    assert (found.trials, found.epochs) == (5, 20)


def test_repetitions_are_in_it(make: StudyFiles) -> None:
    plain = without(make, num_trials=4, max_epochs=4)
    repeated = without(make, num_trials=4, max_epochs=4, repeat_best={"top": 2, "seeds": 3})
    more = estimate(repeated, DRY, PLENTY, RAM).worst_s - estimate(plain, DRY, PLENTY, RAM).worst_s
    assert more == 6 * (6 + 4 * 30)


def test_disk_is_running_kept_and_the_rest_of_all(make: StudyFiles) -> None:
    study = without(make, num_trials=10, max_concurrent_trials=2, keep_checkpoints=3)
    # 2 running: latest, best and one being written; 3 kept: latest and best; logs of all ten
    assert estimate(study, DRY, PLENTY, RAM).disk_bytes == 2 * 3 * 50 + 3 * 2 * 50 + 10 * 10


def test_memory_is_that_of_all_concurrent_trials(make: StudyFiles) -> None:
    found = estimate(without(make, max_concurrent_trials=3), DRY, PLENTY, RAM)
    assert (found.memory_mb, found.ram_mb) == (4500.0, 4096.0)
    assert any(line.startswith("warning: that is more than there is") for line in found.lines())
    fits = estimate(without(make, max_concurrent_trials=2), DRY, PLENTY, RAM)
    assert not any("warning" in line for line in fits.lines())


def test_a_study_that_does_not_fit_on_the_disk_is_refused(make: StudyFiles) -> None:
    study = without(make, num_trials=10, max_concurrent_trials=2, keep_checkpoints=3)
    assert estimate(study, DRY, 700, RAM).disk_bytes == 700
    with pytest.raises(ConfigError) as error:
        estimate(study, DRY, 699, RAM)
    assert str(error.value) == (
        "study mine needs 700 B on the disk and 699 B are free; lower max_concurrent_trials, keep_checkpoints or "
        "num_trials, or choose another output_dir"
    )


def test_a_study_over_its_own_budget_is_refused(make: StudyFiles) -> None:
    keys: dict[str, Any] = {"num_trials": 10, "max_concurrent_trials": 2}
    estimate(without(make, disk_budget=700, **keys), DRY, PLENTY, RAM)
    with pytest.raises(ConfigError, match=r"study mine needs 700 B and its disk_budget is 699 B; lower"):
        estimate(without(make, disk_budget=699, **keys), DRY, PLENTY, RAM)


@pytest.mark.parametrize(
    ("metric", "line"),
    [
        (
            "val/mAP_5",
            "metric: val/mAP_5 is not measured; did you mean 'val/mAP_50'? or choose one of val/gone, val/mAP",
        ),
        ("val/zzz", "metric: val/zzz is not measured; choose one of val/gone, val/mAP, val/mAP_50, val/total_loss"),
        ("val/gone", "metric: val/gone has no number after an epoch of the base configuration"),
    ],
)
def test_a_metric_that_no_epoch_measures_is_refused(make: StudyFiles, metric: str, line: str) -> None:
    study = without(make, metric=["val/mAP", metric], mode=["max", "max"])
    with pytest.raises(ConfigError) as error:
        estimate(study, DRY, PLENTY, RAM)
    assert str(error.value).startswith(line)
    assert "species" not in str(error.value)  # of single classes: too many for a line


def test_a_time_budget_that_is_too_short_is_told(make: StudyFiles) -> None:
    lines = estimate(without(make, num_trials=10, max_epochs=4, time_budget="630s"), DRY, PLENTY, RAM).lines()
    assert "warning: time_budget 10 min ends the study before: about 5 of 10 trials" in lines
    enough = estimate(without(make, num_trials=10, max_epochs=4, time_budget="1260s"), DRY, PLENTY, RAM).lines()
    assert not any("time_budget" in line for line in enough)


def slow_asha(trials: int, most: int, grace: int, factor: float, seed: int) -> int:
    """Epochs as Ray's asha has it, written anew: numpy's percentile over what was there before."""
    rungs = [grace * factor**k for k in range(20) if grace * factor**k < most]
    there: dict[float, list[float]] = {rung: [] for rung in rungs}
    total = 0
    for value in np.random.default_rng(seed).permutation(trials):
        stop = most
        for rung in rungs:
            cutoff = np.percentile(there[rung], (1 - 1 / factor) * 100) if there[rung] else None
            there[rung].append(value)
            if cutoff is not None and value < cutoff:
                stop = int(np.ceil(rung))
                break
        total += stop
    return total


@pytest.mark.parametrize(("trials", "most", "grace", "factor"), [(20, 9, 1, 3), (30, 27, 2, 2), (12, 9, 3, 4)])
def test_asha_is_reckoned_as_ray_stops(make: StudyFiles, trials: int, most: int, grace: int, factor: float) -> None:
    asha = {"type": "asha", "grace_period": grace, "reduction_factor": float(factor)}
    study = make(num_trials=trials, max_epochs=most, scheduler=asha)
    truth = np.mean([slow_asha(trials, most, grace, factor, seed) for seed in range(400)])
    assert expected_epochs(study, draws=400) == pytest.approx(truth, rel=0.05)


def test_asha_saves_time_and_says_so(make: StudyFiles) -> None:
    found = estimate(make(num_trials=20, max_epochs=9), DRY, PLENTY, RAM)
    assert found.expected_s is not None
    assert found.expected_epochs is not None
    assert 20 < found.expected_epochs < 100
    assert found.expected_s == pytest.approx(20 * 6 + found.expected_epochs * 30)
    assert found.lines()[0].startswith("time: about ")
    assert "as asha stops them on average), at most 1 h 32 min (180 epochs)" in found.lines()[0]


def test_words() -> None:
    assert [duration(s) for s in (40, 89, 90, 3600, 5400, 7500)] == [
        "40 s",
        "89 s",
        "2 min",
        "60 min",
        "1 h 30 min",
        "2 h 05 min",
    ]
    assert [size(b) for b in (7, 1500, 2.5e6, 3e9, 4e12)] == ["7 B", "1.5 kB", "2.5 MB", "3.0 GB", "4.0 TB"]
