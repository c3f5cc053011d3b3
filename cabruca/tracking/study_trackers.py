"""The trackers of a study, seen from the driver: one MLflow run around the trials' runs, one W&B group, and a look at
the end whether every trial has its run.

A tracker that is dead, slow or wrong costs one warning, never the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cabruca.tracking.study_place import StudyPlace

if TYPE_CHECKING:
    from cabruca.config.study import Study
    from cabruca.tracking.study_dir import StudyDir
    from cabruca.tracking.study_events import StudyState

__all__ = ["StudyPlace", "StudyTrackers"]


class StudyTrackers:
    """Begun before the first trial, ended after the last; of a study that is gone on with, again.

    Args:
        study: `study.base.tracking` says which trackers there are.
    """

    def __init__(self, study: Study, study_dir: StudyDir) -> None:
        self._study, self._study_dir = study, study_dir

    def begin(self) -> None:
        """Open the study's run where MLflow is on, or find it again; waits seconds for a server, never for ever."""

    def place(self, number: int, params: Mapping[str, Any]) -> StudyPlace:
        """What the trial's process is given, for `run_training(..., within=...)`; asks nobody."""
        name = self._study.config.name
        return StudyPlace(name, "", number, dict(params), wandb_group=name)

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None:
        """Note how the study stands in its run; returns at once. A watcher's method."""

    def end(self, state: StudyState, *, interrupted: bool = False) -> None:
        """Send leaderboard, report and best configuration, register the best trial's model, look whether every trial
        has its run.

        Args:
            interrupted: somebody waits for the end: nothing large is sent.
        """
