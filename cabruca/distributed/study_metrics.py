"""A study's numbers as Prometheus gauges, beside those of its trials (`ray_metrics.py`).

Ray writes `ray_` in front of the names. Label: `study`, and one more where the description says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cabruca.tracking.study_events import StudyState


class StudyMetrics:
    """The study's gauges; a watcher of the driver.

    Args:
        study: its name. gauge: makes a gauge, as `ray.util.metrics.Gauge` does.
    """

    def __init__(self, study: str, gauge: Callable[..., Any]) -> None:
        self._study = study

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None:
        """Set what the state knows."""

    def on_end(self, result: Any) -> None:
        """Nothing: the last values stay to be seen."""
