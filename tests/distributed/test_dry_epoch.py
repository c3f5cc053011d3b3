"""What the dry epoch of a study takes for the time of any epoch; without Ray."""

from __future__ import annotations

import pytest

from cabruca.distributed import dry_epoch
from cabruca.distributed.dry_epoch import Watch
from cabruca.train.protocols import Record, RunInfo

INFO = RunInfo(1, 4, 4, 4, "cpu", "fp32", 10, 0, 0, {})


@pytest.mark.parametrize(
    ("steps", "warming"),
    [
        ({1: 5.0, 2: 7.0, 3: 9.0}, 3.0),
        ({1: 5.0, 3: 9.0}, 3.0),  # of workers, one that came too soon after another is not told
        ({1: 2.0, 2: 4.0}, 0.0),
        ({1: 5.0}, 0.0),  # nothing to compare it with
        ({}, 0.0),
    ],
)
def test_what_the_first_step_takes_longer_is_no_epoch_s(
    steps: dict[int, float], warming: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(dry_epoch.time, "time", lambda: now)
    watch = Watch()
    watch.on_start(INFO)
    for step, after in steps.items():
        now = 100.0 + after
        watch.on_step(Record(0, step, {}))
    assert watch.warming_s == pytest.approx(warming)


def test_a_trial_pays_for_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun 2 s after it was asked for; a first step of 5 s, two others of 2 s, a validation of 1 s."""
    now = 102.0
    monkeypatch.setattr(dry_epoch.time, "time", lambda: now)
    watch = Watch()
    watch.on_start(INFO)
    for step, at in ((1, 107.0), (2, 109.0), (3, 111.0)):
        now = at
        watch.on_step(Record(0, step, {}))
    now = 112.0
    watch.on_epoch(Record(1, 3, {"val/mAP": 0.5}))
    assert watch.times(asked_at=100.0) == pytest.approx((7.0, 5.0))
