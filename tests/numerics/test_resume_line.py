"""10 epochs == 5 + kill -9 + 5, bitwise; from the middle of an epoch and from its last step, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import file_reporter
import pytest
from file_reporter import RESUME_CONFIG, RESUME_TASK, FileReporter
from memory_reporter import MemoryReporter
from resuming import assert_same_end

from cabruca.runtime import Runtime
from cabruca.train.loop import train
from cabruca.train.protocols import Record


def numbers(records: list[Record]) -> list[dict[str, float]]:
    """Records without what is measured in seconds or megabytes."""
    return [{k: v for k, v in r.metrics.items() if not k.startswith(("time/", "memory/"))} for r in records]


@pytest.fixture(scope="module")
def unbroken() -> MemoryReporter:
    reporter = MemoryReporter()
    train(RESUME_CONFIG, RESUME_TASK, runtime=Runtime.single(), reporter=reporter)
    assert reporter.state["scheduler"]["rates"] != reporter.state["scheduler"]["base"]  # the plateau was met
    return reporter


@pytest.mark.parametrize(
    ("save_at", "kill_at", "resumes_at"),
    [(-1, 21, (5, 0)), (18, 19, (4, 2)), (20, 20, (4, 0)), (19, 20, (4, 3))],
    ids=["after 5 epochs", "in the middle of an epoch", "before the save", "before an epoch's last step"],
)
def test_a_killed_run_goes_on_bitwise(
    tmp_path: Path, unbroken: MemoryReporter, save_at: int, kill_at: int, resumes_at: tuple[int, int]
) -> None:
    command = [sys.executable, file_reporter.__file__, str(tmp_path), str(save_at), str(kill_at)]
    killed = subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    reporter = FileReporter(tmp_path)
    state = reporter.resume()
    assert state is not None
    assert (state["epoch"], state["step_in_epoch"]) == resumes_at
    train(RESUME_CONFIG, RESUME_TASK, runtime=Runtime.single(), reporter=reporter)
    last = reporter.resume()
    assert last is not None
    assert_same_end(last, unbroken.state)
    assert numbers(reporter.records) == numbers(unbroken.records)[resumes_at[0] :]


@pytest.mark.parametrize("step", range(1, 9))
def test_stopping_after_any_step_changes_nothing(unbroken: MemoryReporter, step: int) -> None:
    first = MemoryReporter(stop_at_step=step)
    result = train(RESUME_CONFIG, RESUME_TASK, runtime=Runtime.single(), reporter=first)
    assert (result.state, result.step) == ("interrupted", step)
    second = MemoryReporter(resume_from=first.state)
    train(RESUME_CONFIG, RESUME_TASK, runtime=Runtime.single(), reporter=second)
    assert_same_end(second.state, unbroken.state)
    assert numbers(first.records + second.records) == numbers(unbroken.records)


def test_the_record_of_a_resumed_epoch_counts_the_time_before_it(unbroken: MemoryReporter) -> None:
    first = MemoryReporter(stop_at_step=2)
    train(RESUME_CONFIG, RESUME_TASK, runtime=Runtime.single(), reporter=first)
    first.state["epoch_sums"]["train_s"] += 1000.0
    second = MemoryReporter(resume_from=first.state)
    train(RESUME_CONFIG, RESUME_TASK, runtime=Runtime.single(), reporter=second)
    assert 1000 < second.records[0].metrics["time/epoch_s"] < 1100
    assert second.records[1].metrics["time/epoch_s"] < 100
    assert second.state["elapsed_s"] > first.state["elapsed_s"]
