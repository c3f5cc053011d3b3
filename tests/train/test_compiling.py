"""training.compile: measured, chosen, told, kept; a tiny network, and backends that need no C++ compiler."""

from __future__ import annotations

import io
import logging
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_line import SLOW_S, CompiledLine, compiled_run, eager, failing, is_compiled, picky, slow
from line_run import go
from line_task import LineTask, line_config
from memory_reporter import MemoryReporter
from processes import on_ranks
from torch import Tensor

from cabruca.runtime import Runtime
from cabruca.train import compiling
from cabruca.train.loop import train
from cabruca.train.protocols import State


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(compiling, "BACKEND", eager)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "torch.compile" in r.getMessage()]


def test_the_faster_is_kept_said_and_stored(caplog: pytest.LogCaptureFixture) -> None:
    task = CompiledLine(plain_s=SLOW_S)
    with caplog.at_level(logging.INFO, "cabruca"):
        _, reporter = compiled_run(task)
    assert is_compiled(task)
    assert reporter.state["compiled"] is True
    last = said(caplog)[-1]
    assert last.startswith("torch.compile: a step takes 0.00")
    assert last.endswith("without (medians of 20); training goes on with it")


def test_a_slower_one_is_taken_back(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(compiling, "BACKEND", slow)
    task = CompiledLine()
    with caplog.at_level(logging.INFO, "cabruca"):
        _, reporter = compiled_run(task)
    assert not is_compiled(task)
    assert reporter.state["compiled"] is False
    assert said(caplog)[-1].endswith("training goes on without it")


@pytest.mark.parametrize("plain_s", [0.0, SLOW_S])
def test_measuring_leaves_no_trace(plain_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout sees the same random numbers, buffers are as they were, the weights are bitwise those of a plain run."""
    monkeypatch.setattr(compiling, "BACKEND", eager if plain_s else slow)
    task, plain = CompiledLine(plain_s=plain_s, dropout=0.5), CompiledLine(dropout=0.5)
    before: dict[str, Tensor] = {}
    real = compiling.choose

    def choose(trial: compiling.Trial, *rest: Any, **options: Any) -> bool:
        before.update({name: value.clone() for name, value in trial.model.state_dict().items()})
        chosen = real(trial, *rest, **options)
        torch.testing.assert_close(dict(trial.model.state_dict()), before, rtol=0, atol=0)
        assert all(p.grad is None for p in trial.model.parameters())
        return chosen

    monkeypatch.setattr(compiling, "choose", choose)
    _, reporter = compiled_run(task)
    _, without = go(plain, training={"num_epochs": 2})
    assert before
    torch.testing.assert_close(reporter.state["model"], without.state["model"], rtol=0, atol=0)
    assert [r.metrics["train/total_loss"] for r in reporter.records] == [
        r.metrics["train/total_loss"] for r in without.records
    ]


def test_without_the_key_nothing_is_compiled_measured_or_stored() -> None:
    task = CompiledLine()
    _, reporter = go(task, training={"num_epochs": 1})
    assert not is_compiled(task)
    assert "compiled" not in reporter.state
    assert [epoch for epoch, _ in task.seen] == [0]  # batches were asked for once


def test_twenty_steps_each_way_on_whole_batches_after_two_of_warm_up() -> None:
    task = CompiledLine(plain_s=SLOW_S, samples=13)
    compiled_run(task, num_epochs=1)
    (_, asked), *_ = task.seen
    assert {len(batch) for batch in asked} == {4}  # not the last one, of a single picture
    assert len(asked) == 22
    assert task.model.backbone.plain_calls.count(True) == 22


def test_validation_is_never_compiled() -> None:
    task = CompiledLine(plain_s=SLOW_S)
    compiled_run(task, num_epochs=3)
    assert is_compiled(task)
    assert task.model.backbone.plain_calls.count(False) == 3
    assert task.model.backbone.plain_calls.count(True) == 22  # training after the trial: none


def test_where_compiling_fails_training_is_plain(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", failing)
    task = CompiledLine(dropout=0.5)
    with caplog.at_level(logging.WARNING, "cabruca"):
        _, reporter = compiled_run(task)
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    expected = "torch.compile does not work here (RuntimeError: no C++ compiler); training goes on without it"
    assert line == expected
    _, without = go(CompiledLine(dropout=0.5), training={"num_epochs": 2})
    torch.testing.assert_close(reporter.state["model"], without.state["model"], rtol=0, atol=0)


REAL_BACKEND = """
import logging
import sys
from compiled_line import CompiledLine, compiled_run
from cabruca.train import compiling
compiling.BACKEND = "inductor"
logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
_, reporter = compiled_run(CompiledLine(), num_epochs=1)
print(reporter.state["compiled"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["there", "missing"])
def test_the_real_backend_with_and_without_a_compiler(compiler: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[1] / "support"),
    }
    if compiler == "missing":
        environment["CXX"] = str(tmp_path / "no_such_compiler")
    elif shutil.which("g++") is None:
        pytest.skip("no g++ here")
    words = [sys.executable, "-c", REAL_BACKEND]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    warnings = [line for line in done.stdout.splitlines() if "does not work here" in line]
    assert len(warnings) == (compiler == "missing"), done.stdout
    assert done.stdout.splitlines()[-1] in (("True", "False") if compiler == "there" else ("False",))


def test_a_task_that_names_no_part_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cabruca"):
        _, reporter = compiled_run(LineTask())
    assert said(caplog) == ["torch.compile: off, the task names no part that can be compiled"]
    assert reporter.state["compiled"] is False


@pytest.mark.parametrize("chosen", [True, False])
def test_a_resumed_run_takes_the_choice_over_unmeasured(chosen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", eager if chosen else slow)
    plain_s = SLOW_S if chosen else 0.0
    _, whole = compiled_run(CompiledLine(plain_s=plain_s, dropout=0.5))
    _, first = compiled_run(CompiledLine(plain_s=plain_s, dropout=0.5), MemoryReporter(stop_at_step=6))
    assert first.state["compiled"] is chosen
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "_measured", lambda *_: pytest.fail("measured again"))
    task = CompiledLine(plain_s=plain_s, dropout=0.5)
    _, second = compiled_run(task, MemoryReporter(resume_from=first.state))
    assert is_compiled(task) is chosen
    torch.testing.assert_close(second.state["model"], whole.state["model"], rtol=0, atol=0)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_a_compiled_run_goes_on_plain_where_compiling_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Resumed on a machine without a compiler: the choice that was taken over holds until the first step."""
    _, first = compiled_run(CompiledLine(plain_s=SLOW_S, dropout=0.5), MemoryReporter(stop_at_step=6))
    assert first.state["compiled"] is True
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "BACKEND", failing)
    task = CompiledLine(dropout=0.5)
    _, second = compiled_run(task, MemoryReporter(resume_from=first.state))
    assert warnings(caplog) == [
        "torch.compile does not work here (RuntimeError: no C++ compiler); training goes on without it"
    ]
    assert not is_compiled(task)
    assert second.state["compiled"] is False
    _, whole = go(CompiledLine(dropout=0.5), training={"num_epochs": 2})
    torch.testing.assert_close(second.state["model"], whole.state["model"], rtol=0, atol=0)


def test_a_shape_that_cannot_be_compiled_is_taken_plain(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The trial is of whole micro-batches, the last of an epoch is of one point: the same weights, and one warning."""
    monkeypatch.setattr(compiling, "BACKEND", picky)
    task = CompiledLine(plain_s=SLOW_S, dropout=0.5)
    _, reporter = compiled_run(task)
    (line,) = warnings(caplog)
    assert "no code for this shape" in line
    assert not is_compiled(task)
    _, plain = go(CompiledLine(dropout=0.5), training={"num_epochs": 2})
    torch.testing.assert_close(reporter.state["model"], plain.state["model"], rtol=0, atol=0)


def test_other_errors_of_a_compiled_step_are_not_the_compilers() -> None:
    assert not compiling.cannot_compile(RuntimeError("shape mismatch"))
    assert not compiling.cannot_compile(torch.OutOfMemoryError("CUDA out of memory"))


def test_a_compiled_run_goes_on_plain_when_the_key_is_gone() -> None:
    _, first = compiled_run(CompiledLine(plain_s=SLOW_S), MemoryReporter(stop_at_step=6))
    task = CompiledLine()
    go(task, MemoryReporter(resume_from=first.state), training={"num_epochs": 2})
    assert not is_compiled(task)


@pytest.mark.parametrize(
    "training",
    [
        {"unfreeze": [{"epoch": 1, "part": "backbone"}]},  # a thaw changes what autograd sees
        {"stages": [{"tile_size": 128, "epochs": 1}, {"tile_size": 256, "epochs": 1, "lr": 0.01}]},
        {"ema_decay": 0.9},
        {"gradient_accumulation_steps": 2, "on_oom": "shrink"},
    ],
    ids=lambda training: next(iter(training)),
)
def test_beside_the_other_features(training: dict[str, Any]) -> None:
    task = CompiledLine(plain_s=SLOW_S, dropout=0.5)
    _, compiled = compiled_run(task, **training)
    assert is_compiled(task)
    _, plain = go(CompiledLine(dropout=0.5), training={"num_epochs": 2, **training})
    torch.testing.assert_close(compiled.state["model"], plain.state["model"], rtol=0, atol=0)


def _one_slow_rank(runtime: Runtime) -> State:
    """Compiling pays on rank 0 and fails on rank 1."""
    compiling.BACKEND = eager if runtime.is_main else failing
    task, reporter = CompiledLine(plain_s=SLOW_S), MemoryReporter()
    config = line_config(training={"compile": True, "num_epochs": 1})
    train(config, task, runtime=runtime, reporter=reporter)
    return {"compiled": is_compiled(task), "stored": reporter.state["compiled"]}


def test_all_ranks_choose_alike(tmp_path: Path) -> None:
    assert on_ranks(2, partial(_one_slow_rank), tmp_path) == [{"compiled": False, "stored": False}] * 2


def _resumed(state: bytes, runtime: Runtime) -> State:
    """On rank 1 the compiler is gone."""
    compiling.BACKEND = eager if runtime.is_main else failing
    task, reporter = CompiledLine(), MemoryReporter(resume_from=torch.load(io.BytesIO(state), weights_only=True))
    train(line_config(training={"compile": True, "num_epochs": 2}), task, runtime=runtime, reporter=reporter)
    return {"compiled": is_compiled(task), "stored": reporter.state["compiled"], "slope": reporter.state["model"]}


def test_all_ranks_give_up_alike(tmp_path: Path) -> None:
    _, first = compiled_run(CompiledLine(plain_s=SLOW_S), MemoryReporter(stop_at_step=6))
    state = io.BytesIO()  # not tensors: they would be one memory for both processes
    torch.save({**first.state, "rng": []}, state)
    ours, others = on_ranks(2, partial(_resumed, state.getvalue()), tmp_path)
    assert (ours["compiled"], ours["stored"]) == (others["compiled"], others["stored"]) == (False, False)
    torch.testing.assert_close(ours["slope"], others["slope"], rtol=0, atol=0)


# --- 11: compiling rebound the model, so that checkpoints had `_orig_mod.` prefixes and did not load without it


def names_promise() -> None:
    _, compiled = compiled_run(CompiledLine(plain_s=SLOW_S))
    plain = CompiledLine().build_model()
    assert list(compiled.state["model"]) == list(plain.state_dict())
    plain.load_state_dict(compiled.state["model"])


def test_fault_11_a_compiled_runs_checkpoint_loads_without() -> None:
    names_promise()


def test_fault_11_put_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """`model.part = torch.compile(model.part)`."""

    def rebind(trial: compiling.Trial, *_: Any, **__: Any) -> bool:
        trial.model.backbone = torch.compile(trial.model.backbone, backend=eager)  # type: ignore[assignment]
        return True

    monkeypatch.setattr(compiling, "choose", rebind)
    with pytest.raises(AssertionError):
        names_promise()
