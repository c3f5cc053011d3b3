"""LocalReporter passes the suite that every Reporter passes."""

from __future__ import annotations

import itertools
from pathlib import Path

from check_reporter import check_reporter
from run_helpers import line_config

from cabruca.tracking.reporter import LocalReporter
from cabruca.tracking.run_dir import RunDir
from cabruca.train import checkpoint
from cabruca.train.protocols import State


def test_local_reporter(tmp_path: Path) -> None:
    numbers = itertools.count()

    def make(state: State | None) -> LocalReporter:
        return LocalReporter(RunDir.create(tmp_path, f"run{next(numbers)}"), line_config(tmp_path), state)

    check_reporter(make, lambda reporter: checkpoint.read(reporter.run_dir.latest))  # type: ignore[attr-defined]
