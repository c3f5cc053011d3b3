"""training.profile: which operators are seen, what is written, and that training is the same with it."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_line import SLOW_S, CompiledLine, eager
from line_run import go
from line_task import LineTask
from memory_reporter import MemoryReporter
from run_helpers import LineTask as RunLine
from run_helpers import line_config

from cabruca.run import run_training
from cabruca.tracking import profiling
from cabruca.tracking.profiling import Profiler
from cabruca.train import compiling

TRAINING = {"num_epochs": 2, "gradient_accumulation_steps": 2}
"""Of 13 samples: batches 0 to 3 in steps 1 and 2, a validation, batches 4 to 7 in steps 3 and 4, a validation."""


def profiled(folder: Path, first: int, last: int, reporter: MemoryReporter | None = None, task: Any = None) -> Any:
    profiler = Profiler(folder, first, last)
    return go(profiler.around(task or LineTask()), reporter, [profiler], training=TRAINING)


def forward_passes(folder: Path) -> int:
    """How often the network ran while it was watched: a line fit is one `aten::linear` a batch."""
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    return Counter(event.get("name") for event in events)["aten::linear"]


def heading(folder: Path) -> str:
    return (folder / "operators.txt").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("asked", "batches", "steps", "passes"),
    [
        ((0, 0), "0 to 1", "1 to 1", 2),
        ((3, 5), "2 to 5", "2 to 3", 4),  # the validation between them is not in it
        ((6, 7), "6 to 7", "4 to 4", 2),
    ],
)
def test_whole_steps_that_hold_the_batches(
    tmp_path: Path, asked: tuple[int, int], batches: str, steps: str, passes: int
) -> None:
    profiled(tmp_path, *asked)
    assert heading(tmp_path) == f"batches {batches} (optimizer steps {steps}), without validations"
    assert forward_passes(tmp_path) == passes


def test_the_ten_costliest_operators_by_their_own_time(tmp_path: Path) -> None:
    profiled(tmp_path, 0, 7)
    lines = (tmp_path / "operators.txt").read_text().splitlines()
    titles = next(line for line in lines if "Self CPU %" in line)
    assert all(title in titles for title in ("Self CPU", "# of Calls", "Self CPU Mem"))
    shares = [float(found.group(1)) for line in lines if (found := re.match(r"\s*\S.*?\s([\d.]+)%", line))]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) > 20


def test_the_same_weights_with_and_without(tmp_path: Path) -> None:
    _, watched = profiled(tmp_path, 1, 6, task=LineTask(dropout=0.5))
    _, alone = go(LineTask(dropout=0.5), training=TRAINING)
    torch.testing.assert_close(watched.state["model"], alone.state["model"], rtol=0, atol=0)


def test_a_resumed_run_counts_its_own_batches_and_the_runs_steps(tmp_path: Path) -> None:
    _, first = go(reporter=MemoryReporter(stop_at_step=1), training=TRAINING)
    profiled(tmp_path, 0, 1, MemoryReporter(resume_from=first.state))
    assert heading(tmp_path).startswith("batches 0 to 1 (optimizer steps 2 to 2)")


def test_a_run_too_short_for_the_batches_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cabruca"):
        profiled(tmp_path / "none", 10, 20)
        profiled(tmp_path / "part", 5, 20)
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert said[0].startswith("training ended after 8 batches, before training.profile_batches [10, 20]")
    assert said[1] == "training ended after 8 batches, inside training.profile_batches [5, 20]"
    assert not (tmp_path / "none").exists()
    assert (heading(tmp_path / "part"), forward_passes(tmp_path / "part")) == (
        "batches 4 to 7 (optimizer steps 3 to 4), without validations",
        4,
    )


def test_what_an_error_interrupts_is_written(tmp_path: Path) -> None:
    class Failing(LineTask):
        def validate(self, *_: Any, **__: Any) -> Any:
            raise ValueError("broken picture")

    with pytest.raises(ValueError, match="broken picture"):
        profiled(tmp_path, 1, 20, task=Failing())
    assert forward_passes(tmp_path) == 4


@pytest.mark.parametrize("broken", ["start", "export"])
def test_a_profiler_that_fails_costs_one_warning(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no room on the device\nmore")

    if broken == "start":
        monkeypatch.setattr(profiling, "profile", fail)
    else:
        monkeypatch.setattr(profiling.profile, "export_chrome_trace", fail)
    with caplog.at_level(logging.WARNING, "cabruca"):
        result, _ = profiled(tmp_path, 0, 3)
    assert result.state == "finished"
    assert [r.getMessage() for r in caplog.records] == [
        "profiling failed and training goes on without it (RuntimeError: no room on the device)"
    ]


def profile_promise(folder: Path) -> None:
    """The README of the predecessor, "Profile Training": `profile: true`, `profile_batches: [10, 20]` (our default)."""
    config = line_config(folder, experiment_name="watched", training__profile=True, training__num_epochs=4)
    run_training(config, task_factory=RunLine, quiet=True)
    assert "batches 10 to 20" in heading(folder / "watched" / "profile")
    assert forward_passes(folder / "watched" / "profile") == 11 * 2  # two linear layers


def test_fault_10_profiling_is_there(tmp_path: Path) -> None:
    profile_promise(tmp_path)


def test_fault_10_profiling_put_back_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is accepted, and nothing happens."""
    monkeypatch.setattr("cabruca.preparing.profiled", lambda task, *_: (task, []))
    with pytest.raises(FileNotFoundError):
        profile_promise(tmp_path)


def test_batches_that_torch_compile_is_tried_on_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", eager)
    profiler = Profiler(tmp_path, 3, 5)
    task = profiler.around(CompiledLine(plain_s=SLOW_S))
    go(task, None, [profiler], training={**TRAINING, "compile": True})  # type: ignore[arg-type]
    torch.compiler.reset()
    assert heading(tmp_path).startswith("batches 2 to 5 (optimizer steps 2 to 3)")
