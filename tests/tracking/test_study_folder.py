"""The folder of a study: where it lies, what is written, how it is found, and who may run it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from study_files import BASE, StudyFiles

from cabruca.commands import command
from cabruca.config.study import Study
from cabruca.config.study_change import check_going_on
from cabruca.errors import RunError
from cabruca.tracking.study_dir import StudyDir, find_study, names_of_studies, trial_name, trial_number
from cabruca.tracking.study_events import Journal


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return StudyFiles(tmp_path)(base={"output_dir": str(tmp_path / "outputs")})


def test_a_study_lies_below_the_output_dir_of_its_base(study: Study, tmp_path: Path) -> None:
    folder = StudyDir.create(study)
    assert folder.path == tmp_path / "outputs" / "studies" / "mine"
    assert folder.name == "mine"
    assert folder.trial_dir(7).path == folder.path / "trials" / "trial_0007"
    assert folder.repeat_dir(7, 1).path == folder.path / "repeats" / "trial_0007_seed_1"
    assert folder.trials.is_dir()


def test_what_is_written_is_read_back_as_the_same_study(tmp_path: Path) -> None:
    files = StudyFiles(tmp_path)
    study = files(
        {"optimizer.lr": 1e-3},
        base={"output_dir": str(tmp_path)},
        set={"training.seed": 3, "optimizer.weight_decay": 0.02},
        metric=["val/a", "val/b"],
        mode=["max", "min"],
        scheduler={"type": "none"},
        points_to_evaluate=[{"optimizer.lr": 1e-4, "scheduler.T_max": 3}],
        repeat_best={"top": 1},
        time_budget="2h",
    )
    folder = StudyDir.create(study)
    again = folder.load()
    assert (again.config, again.base, again.space) == (study.config, study.base, study.space)
    (tmp_path / "base.yaml").unlink()  # the folder needs nothing of what it was begun from
    (tmp_path / "study.yaml").unlink()
    extended = StudyDir.open(folder.path).load({"study.num_trials": 40})
    assert (extended.config.num_trials, extended.base) == (40, study.base)
    check_going_on(again, extended)


def test_secrets_are_not_written(tmp_path: Path) -> None:
    uri = {"tracking": {"mlflow_uri": "https://me:hunter2@tracker.example"}}
    study = StudyFiles(tmp_path)(base={"output_dir": str(tmp_path), **uri}, set={"tracking.wandb_entity": "us"})
    folder = StudyDir.create(study)
    assert "hunter2" not in folder.base_yaml.read_text() + folder.study_yaml.read_text()
    assert study.base.tracking.mlflow_uri is not None
    check_going_on(folder.load(), study)  # the mask is no difference


def test_a_second_study_of_the_name_is_refused(study: Study) -> None:
    StudyDir.create(study)
    with pytest.raises(RunError, match=r"mine is there already; go on with it \(.*cabruca tune resume /.*/mine\)"):
        StudyDir.create(study)


def test_a_folder_that_cannot_be_written_is_one_line(study: Study, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(RunError, match=r"cannot be written \(.*\); choose another output_dir"):
        StudyDir.create(study)


def test_a_study_is_found_by_name_and_by_folder(study: Study, tmp_path: Path) -> None:
    folder = StudyDir.create(study)
    assert find_study("mine", tmp_path / "outputs") == folder
    assert find_study(folder.path) == folder
    assert names_of_studies(tmp_path / "outputs") == ["mine"]
    with pytest.raises(RunError, match=r"'mien' is no study folder and no study in .*; did you mean 'mine'\?"):
        find_study("mien", tmp_path / "outputs")
    with pytest.raises(RunError, match="give the study's folder, or --output-dir"):
        find_study("mine", tmp_path / "elsewhere")
    with pytest.raises(RunError, match="holds no study"):
        StudyDir.open(tmp_path)


def test_names_of_trials() -> None:
    assert [trial_name(n) for n in (0, 7, 12345)] == ["trial_0000", "trial_0007", "trial_12345"]
    assert [trial_number(n) for n in ("trial_0007", "trial_12345", "trial_7", "mine")] == [7, 12345, None, None]


def test_two_do_not_run_one_study(study: Study) -> None:
    folder = StudyDir.create(study)
    with folder.lock():
        with pytest.raises(RunError) as error, StudyDir(folder.path).lock():
            pass
        assert str(error.value) == (
            f"study mine is being run by process {os.getpid()} on {socket.gethostname()}; wait for it, stop it, or "
            f"look on: {command('tune', 'status', folder.path)}"
        )
    with folder.lock():
        assert json.loads(folder.lock_file.read_text())["pid"] == os.getpid()


def test_a_file_system_without_locks_is_called_so(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(RunError, match="this file system has no locks; put output_dir elsewhere"),
        StudyDir.create(study).lock(),
    ):
        pass


def test_what_came_to_no_trial_is_forgotten(study: Study) -> None:
    folder = StudyDir.create(study)
    for path in (folder.estimate, folder.optuna_db, folder.path / "optuna.db-journal"):
        path.write_text("x")
    assert not folder.was_asked
    folder.forget_beginning()
    assert sorted(path.name for path in folder.path.iterdir()) == ["base_config.yaml", "study.yaml", "trials"]
    with Journal(folder.results) as journal:
        journal.append({"event": "note", "text": "the study begins"})
        assert not folder.was_asked
        journal.append({"event": "asked", "trial": 0, "params": {}})
    assert folder.was_asked


HOLDER = """
import sys, time
from pathlib import Path
from cabruca.tracking.study_dir import StudyDir
with StudyDir(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_driver_holds_nothing(study: Study) -> None:
    folder = StudyDir.create(study)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=f"process {holder.pid} on"), folder.lock():
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with folder.lock():
        pass


def test_the_base_is_unchanged_by_being_stored(study: Study) -> None:
    folder = StudyDir.create(study)
    assert folder.load().base.training.seed == BASE["training"]["seed"]
