"""What a study leaves beside its journal for people: leaderboard.csv, best_config.yaml, report.html."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from cabruca.config.load import redact, to_yaml
from cabruca.config.study import Study, best_config
from cabruca.distributed.importance import importances
from cabruca.study_report import write_report
from cabruca.tracking.files import write_atomic
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_state import StudyState
from cabruca.tracking.study_tables import leaderboard_csv

_log = logging.getLogger("cabruca.distributed")


class Tables:
    """leaderboard.csv and best_config.yaml, kept up as the study goes; the report at its end. A watcher."""

    def __init__(self, study: Study, study_dir: StudyDir) -> None:
        self._study, self._dir = study, study_dir
        self._next_at = 0.0

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None:
        """After a trial's end, but for at most a small share of the time."""
        began = time.monotonic()
        if event["event"] != "ended" or began < self._next_at:
            return
        self._write_small(state)
        self._next_at = time.monotonic() + max(1.0, 50 * (time.monotonic() - began))

    def on_end(self, result: Any) -> None:
        """Nothing; `write` is called before."""

    def write(self, state: StudyState) -> None:
        """All of them. What cannot be made costs a warning."""
        try:
            self._write_small(state)
            write_report(self._study, self._dir, state, importances(self._study, state))
        except Exception as error:
            _log.warning("the study's tables could not be written (%s)", error, exc_info=error)

    def _write_small(self, state: StudyState) -> None:
        write_atomic(self._dir.leaderboard, leaderboard_csv(self._study, state))
        best = state.best(self._study)
        if best is not None:
            config = best_config(self._study, best.params)
            write_atomic(self._dir.best_config, to_yaml(redact(config.to_dict())))
