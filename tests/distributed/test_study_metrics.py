"""A study's gauges: trials by state, best value, trials stopped at each rung; and counting costs little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drawn_study import drawn_study

from cabruca.distributed import study_metrics as module
from cabruca.distributed.study_metrics import StudyMetrics
from cabruca.tracking.study_events import read
from cabruca.tracking.study_state import Result, StudyState, TrialState


class Gauges:
    """Remembers gauges as `ray.util.metrics.Gauge` would make them."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}
        self.sets = 0

    def __call__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> Any:
        outer = self

        class Gauge:
            def set(self, value: float, tags: dict[str, str]) -> None:
                assert tuple(tags) == tag_keys
                outer.values[name, *tags.values()] = value
                outer.sets += 1

        return Gauge()


def test_they_say_how_the_study_stands(tmp_path: Path) -> None:
    study, study_dir = drawn_study(tmp_path)
    gauges, state = Gauges(), read(study_dir.results)
    StudyMetrics(study, gauges).on_event({"event": "ended", "trial": 1}, state)
    counted = {key[2]: value for key, value in gauges.values.items() if key[0] == "cabruca_study_trials"}
    assert counted == {"finished": 2, "stopped": 2, "failed": 1, "interrupted": 1, "running": 1, "waiting": 1}
    rungs = {key[2]: value for key, value in gauges.values.items() if key[0] == "cabruca_study_rung_trials"}
    assert rungs == {"1": 1, "3": 1}
    assert gauges.values["cabruca_study_best", "drawn"] == 0.7123
    assert {key[1] for key in gauges.values} == {"drawn"}


def test_a_large_study_is_not_counted_at_every_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its last state is shown nevertheless."""
    study, _ = drawn_study(tmp_path)
    state = StudyState({k: TrialState(k, {}, state="running") for k in range(3000)})
    gauges = Gauges()
    shown = StudyMetrics(study, gauges)
    events = 500
    for _ in range(events):  # so many, not so long: on a loaded machine a while holds one event
        shown.on_event({"event": "result", "trial": 0}, state)
    looks = gauges.sets / 6  # of six states; there is no best value and no rung
    assert 1 <= looks < events / 10
    state.trials[7].add(Result(1, 6, {"val/mAP_50": 0.5}))
    state.trials[7].state = "finished"
    shown.on_end(None)
    assert gauges.values["cabruca_study_trials", "drawn", "finished"] == 1
    assert gauges.values["cabruca_study_best", "drawn"] == 0.5
    assert module.SHARE <= 0.1
