"""`cabruca tune repeat`, `best` and `extend --study`: what reaches the driver, and what is said at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from drawn_study import drawn_study, write_study

from cabruca.cli.main import main
from cabruca.config.study import trial_config
from cabruca.study_report.cautions import cautions
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import read
from cabruca.tuning import closing


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["tune", *map(str, args)])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What the driver of repetitions was asked for; they end at once, interrupted."""
    found: list[SimpleNamespace] = []

    def run_repeats(study: Any, study_dir: Any, **options: Any) -> SimpleNamespace:
        found.append(SimpleNamespace(study=study, study_dir=study_dir, **options))
        return SimpleNamespace(state="interrupted", rows=[], exit_code=143)

    monkeypatch.setitem(sys.modules, "cabruca.distributed.repeat", SimpleNamespace(run_repeats=run_repeats))
    return found


def test_flags_reach_the_driver_and_the_report_is_written_anew(tmp_path: Path, asked: list[SimpleNamespace]) -> None:
    _, study_dir = drawn_study(tmp_path)
    where = ("repeat", "drawn", "--output-dir", tmp_path / "outputs")
    done = run(*where, "--top", "3", "--seeds", "4", "--max-concurrent", "2", "--address", "auto", "--use-mlflow")
    assert done.exit_code == 143, done.output
    (one,) = asked
    assert (one.top, one.seeds, one.study_dir.path) == (3, 4, study_dir.path)
    assert one.study.config.max_concurrent_trials == 2
    assert (one.study.base.distributed.address, one.study.base.tracking.mlflow) == ("auto", True)
    assert study_dir.report.is_file()
    assert f"report        {study_dir.report}" in done.stdout
    assert run(*where).exit_code == 143
    assert (asked[-1].top, asked[-1].seeds) == (None, None), "the study's repeat_best, or 2 and 3"
    assert run(*where, "--time-budget", "2h").exit_code == 143
    assert [one.budget_s for one in asked] == [None, None, 7200.0]


def test_a_study_without_a_value_has_nothing_to_repeat(tmp_path: Path, asked: list[SimpleNamespace]) -> None:
    _, study_dir = drawn_study(tmp_path)
    study_dir.results.unlink()
    done = run("repeat", study_dir.path)
    assert done.exit_code == 2
    assert "has no trial with a value to repeat" in done.stderr
    assert asked == []


def test_a_flag_of_the_beginning_stays_when_a_file_widens_the_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--set validation.frequency=2` is noted as the study's own, and stands in no file."""
    asked: list[Any] = []

    def run_study(study: Any, study_dir: Any, **_: Any) -> SimpleNamespace:
        asked.append(study)
        study_dir.write(study)
        return SimpleNamespace(state="finished", best=None, message="", exit_code=0)

    monkeypatch.setitem(sys.modules, "cabruca.distributed.study", SimpleNamespace(run_study=run_study))
    path = write_study(tmp_path)
    assert run("--study", path, "--set", "validation.frequency=2").exit_code == 0
    path.write_text(path.read_text().replace("2.0e-3]", "1.0e-2]"))
    extend = ("extend", "drawn", "--output-dir", tmp_path / "outputs", "--trials", "+1", "--study", path)
    done = run(*extend)
    assert done.exit_code == 0, done.output
    assert asked[-1].space["optimizer.lr"].high == 1e-2
    assert trial_config(asked[-1], {}, number=9, folder=tmp_path).validation.frequency == 2
    path.write_text(path.read_text() + "set: {validation.frequency: 1}\n")
    assert "another `set`" in run(*extend).stderr


def test_what_is_said_at_the_end_finds_a_study_that_was_moved(tmp_path: Path) -> None:
    """Or that is gone on with from another folder than it was begun in: output_dir may be relative."""
    study, study_dir = drawn_study(tmp_path)
    moved = StudyDir(study_dir.path.rename(tmp_path / "elsewhere"))
    moved.best_config.write_text("{}\n")
    commands = [line.split()[-4:] for line in closing(study, moved) if " tune " in line]
    assert len(commands) == 2
    for words in commands:
        assert str(moved.path) in words
    assert str(study_dir.path.parents[1]) not in "\n".join(line for line in closing(study, moved) if "tune" in line)


def test_the_winner_of_a_population_is_not_said_to_be_repeated(tmp_path: Path) -> None:
    for kind, told in (("asha", False), ("pbt", True)):
        study, study_dir = drawn_study(tmp_path / kind, scheduler=kind)
        said = "has the parameters that the trial began with"
        assert (said in run("best", study_dir.path).stdout) is told
        assert (said in "\n".join(cautions(study, read(study_dir.results), []))) is told
