"""A study's numbers as Prometheus gauges, beside those of its trials (`ray_metrics.py`).

Ray writes `ray_` in front of the names. Label: `study`; of trials by state `state` too, of rungs `rung` (an epoch).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, get_args

from cabruca.config.study import Study
from cabruca.tracking.study_state import StudyState, TrialPhase

SHARE = 0.01
"""Most of the driver's time that counting may take: large studies are looked at less often."""


class StudyMetrics:
    """The study's gauges; a watcher of the driver.

    Args:
        gauge: makes a gauge, as `ray.util.metrics.Gauge` does.
    """

    def __init__(self, study: Study, gauge: Callable[..., Any]) -> None:
        self._study, self._name = study, study.config.name
        self._trials = self._make(gauge, "trials", "trials by state", "state")
        self._best = self._make(gauge, "best", "best value of the first metric")
        self._rungs = self._make(gauge, "rung_trials", "trials stopped at a rung", "rung")
        self._not_before = 0.0
        self._state: StudyState | None = None

    @staticmethod
    def _make(gauge: Callable[..., Any], name: str, what: str, *more: str) -> Any:
        return gauge(f"cabruca_study_{name}", description=f"cabruca: {what}", tag_keys=("study", *more))

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None:
        """Set what the state knows."""
        self._state = state
        began = time.monotonic()
        if began < self._not_before:
            return
        self._show(state)
        now = time.monotonic()
        self._not_before = now + (now - began) / SHARE

    def on_end(self, result: Any) -> None:
        """The last values stay to be seen for as long as the driver lives."""
        if self._state is not None:
            self._show(self._state)

    def _show(self, state: StudyState) -> None:
        phases = Counter(trial.state for trial in state.trials.values())
        for phase in get_args(TrialPhase):
            self._trials.set(float(phases[phase]), tags={"study": self._name, "state": phase})
        rungs = Counter(trial.rung for trial in state.trials.values() if trial.rung is not None)
        for rung, number in rungs.items():
            self._rungs.set(float(number), tags={"study": self._name, "rung": str(rung)})
        best = state.best(self._study)
        value = best.best(self._study) if best is not None else None
        if value is not None:
            self._best.set(value.value, tags={"study": self._name})
