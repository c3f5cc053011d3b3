"""The driver around its trials, with a tuner and an epoch that are played: what is written and said at each end."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from drawn_study import result, write_study

from cabruca.config.study import Study, load_study
from cabruca.distributed.repeat import Repeats
from cabruca.errors import ConfigError, RunError
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_estimate import DryEpoch

DRY = DryEpoch(1.0, 1.0, 1000, 100.0, {"val/mAP_50": 0.1, "val/mAP": 0.1, "val/x": float("nan")}, 800)


class Played:
    """What stands in for Ray: `ends` of the trials that a session runs, by number; counts dry epochs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from cabruca.distributed import study, study_prognosis

        self.ends: dict[int, str] = {}
        self.epochs = self.closed = 0
        self.used_up = False
        monkeypatch.setattr(study, "cluster_for", lambda config: nullcontext())
        monkeypatch.setattr(study, "all_resources", lambda ray: [{"CPU": 4.0}])
        monkeypatch.setattr(study, "open_desk", lambda ray, desk: None)
        monkeypatch.setattr("ray.kill", lambda desk: None)
        monkeypatch.setattr(study, "StudyMetrics", lambda *_: None)
        monkeypatch.setattr(study, "run_tuner", self.tune)
        monkeypatch.setattr(study_prognosis, "try_epoch", self.dry)
        end = study.StudyTrackers.end
        monkeypatch.setattr(study.StudyTrackers, "end", lambda *a, **k: self.close(end(*a, **k)))

    def tune(self, books: Any, job: Any, stop: Any, *, on_end: Any, **_: Any) -> None:
        for number, state in self.ends.items():
            books.write("asked", trial=number, params={"optimizer.lr": 1e-3})
            if state == "finished":
                books.write(**result(number, 1, {"val/mAP_50": 0.5}))
            books.write("ended", trial=number, state=state, epoch=1, reason=f"DataError: picture {number}")
            on_end(number)
            if stop.reason is not None:
                return
        if self.used_up:
            stop.reason = "the time budget is used up"

    def dry(self, *_: Any) -> DryEpoch:
        self.epochs += 1
        return DRY

    def close(self, found: Any) -> Any:
        self.closed += 1
        return found


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


def run(folder: Path, **overrides: Any) -> tuple[Any, Study, StudyDir]:
    from cabruca.distributed.study import run_study

    study = load_study(write_study(folder), {f"study.{key}": value for key, value in overrides.items()})
    study_dir = StudyDir.of(study)
    study_dir = study_dir if study_dir.holds_study else StudyDir.create(study)
    return run_study(study, study_dir, quiet=True), study, study_dir


def test_a_repetition_that_fails_leaves_report_and_closed_trackers(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RunError("repetition 1 of trial 0 failed")

    monkeypatch.setattr("cabruca.distributed.study.repeat_best", fails)
    played.ends = dict.fromkeys(range(8), "finished")
    with pytest.raises(RunError, match="repetition 1"):
        run(tmp_path, repeat_best={"top": 1, "seeds": 1})
    folder = StudyDir(tmp_path / "outputs" / "studies" / "drawn")
    assert folder.report.is_file()
    assert folder.best_config.is_file()
    assert played.closed == 1


def test_the_time_budget_is_for_the_repetitions_too(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends: list[float] = []

    def out_of_time(*_: Any, ends_at: float, **__: Any) -> Repeats:
        ends.append(ends_at - time.monotonic())
        return Repeats([], "stopped")

    monkeypatch.setattr("cabruca.distributed.study.repeat_best", out_of_time)
    played.ends = dict.fromkeys(range(8), "finished")
    asked: dict[str, Any] = {"repeat_best": {"top": 1, "seeds": 2}, "time_budget": 600}
    found, _, folder = run(tmp_path, **asked)
    assert (found.state, found.message, found.exit_code) == ("stopped", "the time budget is used up", 0)
    assert 500 < ends[0] <= 600
    assert capsys.readouterr().err.rstrip().endswith(f"tune resume {folder.path} --time-budget 1200")

    def in_time(*_: Any, **__: Any) -> Repeats:
        folder.repeats_json.write_text(json.dumps({"trials": [{"trial": 0, "values": [0.5, 0.6]}]}))
        return Repeats([], "finished")

    monkeypatch.setattr("cabruca.distributed.study.repeat_best", in_time)
    played.ends = {}
    assert run(tmp_path, **asked)[0].state == "finished"
    played.used_up = True  # while nothing was left to do
    assert run(tmp_path, **asked)[0].state == "finished"
    folder.repeats_json.write_text(json.dumps({"trials": [{"trial": 0, "values": [0.5]}]}))
    assert run(tmp_path, **asked)[0].state == "stopped"


def test_a_study_that_only_fails_stops_and_says_so(
    tmp_path: Path, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    played.ends = dict.fromkeys(range(8), "failed")
    found, _, folder = run(tmp_path)
    assert (found.state, found.exit_code) == ("stopped", 2)
    assert found.message == "every trial fails: DataError: picture 4"
    assert capsys.readouterr().err.rstrip().endswith(f"tune resume {folder.path} --retry-failed")


def test_few_failures_are_no_success_either(tmp_path: Path, played: Played) -> None:
    played.ends = dict.fromkeys(range(2), "failed")
    found, _, _ = run(tmp_path, num_trials=2)
    assert (found.state, found.exit_code) == ("finished", 2)
    assert found.message == "every trial fails, 2 of 2 so: DataError: picture 0"


def test_the_estimate_is_told_again_when_the_study_changes(tmp_path: Path, played: Played) -> None:
    played.ends = dict.fromkeys(range(8), "finished")
    _, _, folder = run(tmp_path)
    assert json.loads(folder.estimate.read_text())["trials"] == 8
    played.ends = {}
    run(tmp_path, num_trials=12)
    found = json.loads(folder.estimate.read_text())
    assert (found["trials"], played.epochs) == (4, 1)  # those that are left, from the epoch that was tried
    assert found["used_bytes"] > 0
    with pytest.raises(ConfigError, match="its disk_budget is"):
        run(tmp_path, num_trials=200, disk_budget=500)
    assert folder.load().config.num_trials == 12, "what is refused is not written down"


def test_trials_that_cannot_be_are_refused_before_the_epoch(tmp_path: Path, played: Played) -> None:
    with pytest.raises(ConfigError, match="fits nowhere"):
        run(tmp_path, resources_per_trial={"cpu": 64})
    with pytest.raises(ConfigError, match=r"pbt copies weights between trials, which model.backbone would not let fit"):
        run(tmp_path, scheduler={"type": "pbt"})
    assert played.epochs == 0
    played.ends = dict.fromkeys(range(8), "finished")
    assert run(tmp_path)[0].state == "finished"
