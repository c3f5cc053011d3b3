"""What keeps a study from waiting, filling the disk or failing for nothing: without a cluster, on drawn journals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from drawn_study import drawn_study, result, write_study

from cabruca.config.study import Study, load_study
from cabruca.distributed.folder_sizes import bytes_of
from cabruca.distributed.keeping import Keeper
from cabruca.distributed.study_failing import IN_A_ROW, FailureWatch, all_failed
from cabruca.distributed.study_fit import check_trials_fit
from cabruca.errors import ConfigError
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal
from cabruca.tracking.study_words import ALL_FAIL, DISK_IS_FULL, TIME_IS_UP, go_on_command

NODES = [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}]


def study_with(folder: Path, **keys: Any) -> Study:
    return load_study(write_study(folder), {f"study.{key.replace('__', '.')}": value for key, value in keys.items()})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"resources_per_trial__cpu": 64}, "(cpu 64) fits nowhere: there is 4 CPU; 2 CPU; --set study."),
        ({"resources_per_trial__gpu": 2}, "--set study.resources_per_trial.gpu=1, or add nodes"),
        ({"resources_per_trial__gpu": 1, "resources_per_trial__cpu": 3}, "lower resources_per_trial, or add nodes"),
        (
            {"workers_per_trial": 2, "resources_per_trial__cpu": 4},
            "2 workers_per_trial x resources_per_trial (cpu 4) fits",
        ),
    ],
)
def test_a_trial_that_fits_nowhere_is_refused(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    study = study_with(tmp_path, **keys)
    with pytest.raises(ConfigError) as error:
        check_trials_fit(study, StudyDir.of(study), NODES)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_fewer_at_a_time_than_asked_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for cpu, text in ((2, "room for 3 trials"), (1, ""), (4, "room for 1 trial at")):
            caplog.clear()
            study = study_with(tmp_path, resources_per_trial__cpu=cpu, max_concurrent_trials=6)
            check_trials_fit(study, StudyDir.of(study), [{"CPU": 4.0}, {"CPU": 2.0}])
            assert text in caplog.text
            assert bool(text) == bool(caplog.text)


def test_gpus_that_no_trial_sets_aside_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {},
            "the cluster has 1 GPU and resources_per_trial sets none aside, so trials share the first GPU of",
        ),
        ({"workers_per_trial": 2}, "so trials train on CPUs; write gpu: 1, or device: cpu"),
        ({"resources_per_trial__gpu": 0.5}, ""),
        ({"set": {"device": "cpu"}}, ""),
    ]
    with caplog.at_level("INFO"):
        for keys, text in cases:
            caplog.clear()
            study = study_with(tmp_path, **keys)
            check_trials_fit(study, StudyDir.of(study), NODES)
            assert text in caplog.text
            assert bool(text) == bool(caplog.text)


def failing(journal: Journal, reasons: list[str]) -> list[str]:
    """What the watch says after these failures."""
    told: list[str] = []
    watch = FailureWatch(journal.state, told.append)
    first = len(journal.state.trials)
    for number, reason in enumerate(reasons, first):
        journal.append({"event": "asked", "trial": number, "params": {}})
        journal.append({"event": "ended", "trial": number, "state": "failed", "epoch": 0, "reason": reason})
        watch(number)
    return told


def test_five_failures_alike_and_no_success_stop_a_study(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl") as journal:
        assert failing(journal, [f"DataError: picture {n} is broken" for n in range(IN_A_ROW - 1)]) == []
        assert failing(journal, ["other", *["DataError: picture 7 is broken"] * 4]) == []
        assert failing(journal, [f"DataError: picture {n} is broken" for n in range(IN_A_ROW)]) == [
            f"{ALL_FAIL}: DataError: picture 4 is broken"
        ]
        assert all_failed(journal.state) == f"{ALL_FAIL}, 13 of 14 so: DataError: picture 0 is broken"
        journal.append({"event": "asked", "trial": 99, "params": {}})
        journal.append({"event": "ended", "trial": 99, "state": "finished", "epoch": 1})
        assert failing(journal, ["same"] * 9) == []
        assert all_failed(journal.state) is None


def test_how_to_go_on_names_what_was_used_up(tmp_path: Path) -> None:
    study = study_with(tmp_path, time_budget="90m", disk_budget="2GB")
    folder = StudyDir.of(study)
    assert go_on_command(study, folder, TIME_IS_UP).endswith(f"tune resume {folder.path} --time-budget 10800")
    assert go_on_command(study, folder, f"{DISK_IS_FULL} (x)").endswith("--set study.disk_budget=4000000000")
    assert go_on_command(study, folder, f"{ALL_FAIL}: x").endswith(f"{folder.path} --retry-failed")
    assert go_on_command(study, folder, "interrupted by SIGTERM").endswith(f"tune resume {folder.path}")


def test_the_disk_budget_is_that_of_the_whole_folder(tmp_path: Path) -> None:
    """Two trials of 1000 bytes at a time, 500 in other files: with two more under way 4500 are needed."""
    _, folder = drawn_study(tmp_path)
    folder.results.unlink()
    for path in folder.path.glob("*"):
        path.unlink() if path.is_file() else None
    with Journal(folder.results) as journal:
        for number in range(2):
            journal.append({"event": "asked", "trial": number, "params": {}})
            journal.append(result(number, 1, {"val/mAP_50": 0.5 + number}))
            journal.append({"event": "ended", "trial": number, "state": "finished", "epoch": 1})
            checkpoints = folder.trial_dir(number).checkpoints
            checkpoints.mkdir(parents=True)
            (checkpoints / "checkpoint_latest.pth").write_bytes(bytes(1000))
        (folder.path / "optuna.db").write_bytes(bytes(500))
        whole = bytes_of(folder.path)

        def stops(budget: int) -> list[str]:
            told: list[str] = []
            study = study_with(tmp_path, disk_budget=budget, max_concurrent_trials=2)
            books: Any = SimpleNamespace(study=study, study_dir=folder, state=journal.state, population=None)
            books.drop_there = lambda number: None
            Keeper(books, told.append)
            return told

        assert stops(whole + 2000) == []
        assert bytes_of(folder.path) == whole
        assert stops(whole + 1000) == []  # the worse one's checkpoint gives way
        assert bytes_of(folder.path) == whole - 1000
        (told,) = stops(whole + 999)
        assert told.startswith(f"{DISK_IS_FULL} (")


def test_the_checkpoints_of_a_failed_trials_folds_go_too(tmp_path: Path) -> None:
    study, folder = drawn_study(tmp_path)
    with Journal(folder.results) as journal:
        failed = next(t.number for t in journal.state.trials.values() if t.state == "failed")
    name = folder.trial_dir(failed).path.name
    own = folder.path / "folds" / f"{name}_fold_1" / "checkpoints" / "checkpoint_latest.pth"
    other = folder.path / "folds" / "trial_0099_fold_1" / "checkpoints" / "checkpoint_latest.pth"
    for path in (own, other):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(10))
    with Journal(folder.results) as journal:
        books: Any = SimpleNamespace(study=study, study_dir=folder, state=journal.state, population=None)
        books.drop_there = lambda number: None
        Keeper(books, lambda reason: None)
    assert not own.exists()
    assert other.exists()
