"""What a trial that goes on reads of its own run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cabruca.distributed.trial_history import epoch_of, untold
from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.train import checkpoint


def stopped(folder: Path, epoch: int) -> RunDir:
    """A run that saved after so many epochs and some steps."""
    run_dir = RunDir.create(folder, "trial_0001")
    checkpoint.write(run_dir.latest, {"model": {}, "epoch": epoch, "step": 1}, metric=None)
    return run_dir


def test_one_that_was_stopped_before_its_first_row_has_nothing_to_tell(tmp_path: Path) -> None:
    run_dir = stopped(tmp_path, 0)
    assert not run_dir.metrics.exists()
    assert list(untold(run_dir, 0)) == []
    with pytest.raises(RunError, match="has no epoch 1"):
        epoch_of(run_dir, 1)


def test_epochs_that_a_checkpoint_vouches_for_are_told_once(tmp_path: Path) -> None:
    run_dir = stopped(tmp_path, 3)
    rows = [{"epoch": e, "step": 4 * e, "time/epoch_s": 1.0} for e in (1, 2, 3, 4)]
    run_dir.metrics.write_text("\n".join([*map(json.dumps, rows), '{"epoch": 5, "st']))
    assert [row["epoch"] for row in untold(run_dir, 1)] == [2, 3]
