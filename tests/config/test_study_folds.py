"""`folds` of a study: the file is read into the study, and what it rules out is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from study_line import line_study

from cabruca.config.study import load_study
from cabruca.config.study_change import check_going_on
from cabruca.config.study_folds import KEYS, other_fold, with_fold
from cabruca.errors import ConfigError


def folds_file(folder: Path, count: int = 3) -> str:
    rows = [{key: f"{key}_{k}" for key in KEYS} for k in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "folds.json").write_text(json.dumps({"folds": rows}))
    return str(folder / "folds.json")


def study(folder: Path, **keys: Any) -> Any:
    return line_study(folder, **{"folds": folds_file(folder), "scheduler": {"type": "none"}, **keys})


def test_what_the_file_holds_is_part_of_the_study(tmp_path: Path) -> None:
    found = study(tmp_path)
    assert [f["val_annotations"] for f in found.config.folds] == [f"val_annotations_{k}" for k in range(3)]
    assert load_study(tmp_path / "study.yaml").config == found.config
    beside = study(tmp_path / "b", folds="folds.json") if folds_file(tmp_path / "b") else None
    assert beside is not None
    assert len(beside.config.folds) == 3


def test_other_folds_are_another_study(tmp_path: Path) -> None:
    before = study(tmp_path)
    folds_file(tmp_path, 2)
    with pytest.raises(ConfigError, match="was begun with folds"):
        check_going_on(before, load_study(tmp_path / "study.yaml"))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"scheduler": {"type": "asha"}}, "write scheduler: {type: none}"),
        ({"metric": "train/loss", "mode": "min"}, "metric train/loss has no mean over the folds"),
        (
            {"metric": None, "mode": None, "set": {"training.monitor_metric": "train/total_loss"}},
            r"the monitor train/total_loss has no mean .*, and the study names no metric; write one .* with val/",
        ),
        ({"workers_per_trial": 2}, "folds need workers_per_trial: 1"),
        ({"repeat_best": {"top": 1}}, "leave one of them out"),
        ({"folds": "nowhere.json"}, "is neither in the working directory nor beside"),
        ({"folds": [{"train_dir": "a"}]}, "a mean needs 2 or more"),
        ({"folds": [{"train_dir": "a"}] * 2}, "each needs train_dir"),
    ],
)
def test_what_does_not_go_with_folds(tmp_path: Path, keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as error:
        study(tmp_path, **keys)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"folds": [{"train_dir": 3}]}'])
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    folds_file(tmp_path)
    (tmp_path / "folds.json").write_text(content)
    with pytest.raises(ConfigError, match="write it with cabruca data prepare --folds"):
        line_study(tmp_path, folds=str(tmp_path / "folds.json"), scheduler={"type": "none"})


def test_the_configuration_of_a_fold(tmp_path: Path) -> None:
    found = study(tmp_path)
    config = found.base.model_copy(update={"experiment_name": "trial_0003", "output_dir": str(tmp_path / "trials")})
    own, other = with_fold(config, found.config.folds[2]), other_fold(config, found.config.folds[0], number=1,
                                                                      folder=tmp_path / "folds")  # fmt: skip
    assert own.data.val_annotations == "val_annotations_2"
    assert own.experiment_name == "trial_0003"
    assert other.data.train_dir == "train_dir_0"
    assert other.experiment_name == "trial_0003_fold_1"
    assert not other.tracking.mlflow
    assert own.training.early_stopping_patience == other.training.early_stopping_patience == 0
