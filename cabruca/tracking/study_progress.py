"""What people see while a study runs: a live leaderboard on a terminal, a line an event in a pipe, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from cabruca.config.study import Study
    from cabruca.tracking.study_events import StudyState


class StudyWatcher(Protocol):
    """Told of every event after it is in the journal; `state` already knows of it."""

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None: ...
    def on_end(self, result: Any) -> None: ...


def study_progress_of(
    study: Study, *, quiet: bool = False, json: bool = False, stream: TextIO | None = None
) -> StudyWatcher:
    """The watcher for this terminal and these flags. `stream`: default: stdout."""
    raise NotImplementedError
