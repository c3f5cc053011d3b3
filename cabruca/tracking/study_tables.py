"""The leaderboard of a study: one row a trial whatever its state, as CSV, as a table of 80 columns, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cabruca.config.study import Study
    from cabruca.tracking.study_events import StudyState


def leaderboard_csv(study: Study, state: StudyState) -> str:
    """leaderboard.csv: a header and one row a trial, best first, those without a value last."""
    raise NotImplementedError
