"""A study over folds: its values are means over the folds, also when it was killed in between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from ray_line import ended
from study_line import child, line_study, run, story
from study_tasks import FoldLine

from cabruca.config.study import Study
from cabruca.config.study_folds import KEYS
from cabruca.distributed.folds import FoldsLine, mean_of
from cabruca.tracking.status import read_status
from cabruca.tracking.study_dir import StudyDir


def fold_study(folder: Path, **keys: Any) -> Study:
    rows = [{**dict.fromkeys(KEYS, "x"), "val_annotations": str(k)} for k in (1, 2, 6)]
    given = {"folds": rows, "scheduler": {"type": "none"}, "num_trials": 2, "max_epochs": 3, **keys}
    base = {"distributed__dashboard": False, "data__val_annotations": "0"}
    return line_study(folder, base=base, **given)


def test_means_over_the_folds_leave_out_what_one_lacks() -> None:
    own = {"val/a": 1.0, "val/b": 2.0, "time/epoch_s": 5.0}
    assert mean_of([own, {"val/a": 4.0}], own) == {"val/a": 2.5, "time/epoch_s": 5.0}


def test_the_line_tells_means_and_passes_the_rest_on() -> None:
    told: list[Any] = []

    class Inner:
        def tell(self, result: Any) -> None:
            told.append(result)

        def stop_asked(self) -> str | None:
            return "why"

        def take_over_asked(self, epoch: int) -> object | None:
            return epoch

        def leave_asked(self) -> str | None:
            return None

    line = FoldsLine(Inner(), lambda epoch: [{"val/a": 10.0 * epoch}])
    line.tell({"epoch": 2, "step": 7, "m": {"val/a": 0.0}})
    assert told == [{"epoch": 2, "step": 7, "m": {"val/a": 10.0}}]
    assert line.stop_asked() == "why"
    assert line.take_over_asked(3) == 3


def rows(path: Path) -> dict[int, float]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["epoch"]: row["val/mAP_50"] for row in found if "time/epoch_s" in row}


def assert_means(study: Study) -> None:
    folder = StudyDir.of(study)
    for number, trial in story(study).items():
        runs = [folder.trial_dir(number).metrics]
        runs += [folder.path / "folds" / f"trial_{number:04d}_fold_{k}" / "metrics.jsonl" for k in (1, 2)]
        each = [rows(path) for path in runs]
        assert trial["ends"][-1][0] == "finished"
        assert trial["values"] == {e: pytest.approx(statistics.fmean(r[e] for r in each)) for e in (1, 2, 3)}
        assert each[0][3] - each[1][3] == pytest.approx(5)
        assert not list((runs[1].parent / "checkpoints").glob("*.pth"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("cluster")
def test_the_values_of_a_study_are_means_over_its_folds(tmp_path: Path) -> None:
    study = fold_study(tmp_path)
    assert run(study, trial=FoldLine, dry=False).exit_code == 0
    assert_means(study)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_study_that_was_killed_in_a_fold_goes_on(tmp_path: Path) -> None:
    study = fold_study(tmp_path, num_trials=1)
    process = child(study, sleep_s=0.2, dry=False)
    second = StudyDir.of(study).path / "folds" / "trial_0000_fold_2"
    end = time.monotonic() + 120
    while not (second / "metrics.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert (second / "metrics.jsonl").exists()
    first = (second.parent / "trial_0000_fold_1" / "metrics.jsonl").read_bytes()
    pid = (read_status(second / "status.json") or {})["pid"]
    for one in (process.pid, pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    process.wait()
    code, output = ended(child(study, dry=False))
    assert code == 0, output
    assert (second.parent / "trial_0000_fold_1" / "metrics.jsonl").read_bytes() == first
    told = story(study)[0]
    each = [rows(p / "metrics.jsonl") for p in (second, second.parent / "trial_0000_fold_1",
                                               StudyDir.of(study).trial_dir(0).path)]  # fmt: skip
    assert told["values"] == {e: pytest.approx(statistics.fmean(r[e] for r in each)) for e in (1, 2, 3)}


def test_the_folds_come_before_what_was_saved_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is told is a mean over the folds, and their folders may be missing where storage_path brought the trial."""
    from cabruca.distributed import trial
    from cabruca.tracking.run_dir import RunDir

    done: list[str] = []
    one: Any = object.__new__(trial.Attempt)
    one._config, one._run_dir = None, RunDir(tmp_path)
    monkeypatch.setattr(trial, "mirror_of", lambda config: None)
    for name in ("_train_folds", "_catch_up", "_train"):
        end = trial.Ending("finished", 3, "") if name == "_train" else None
        monkeypatch.setattr(one, name, lambda name=name, end=end: done.append(name) or end)
    assert one.go().state == "finished"
    assert done == ["_train_folds", "_catch_up", "_train"]
