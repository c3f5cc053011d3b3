"""Stages beside other ways of saying how long and how fast a run is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cabruca.config.load import config_from_dict, load_config, merge, notices
from cabruca.config.stages import final_tile_size, stages_of
from cabruca.errors import ConfigError

STAGED = """
optimizer: {lr: 0.0001, param_groups: [{name: backbone, lr: 0.00001}]}
scheduler: {type: onecycle, max_lr: 0.001}
training:
  stages:
    - {tile_size: 256, epochs: 30}
    - {tile_size: 512, epochs: 20, lr: 0.00001}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(STAGED, encoding="utf-8")
    return path


def test_stages_give_epochs_tiles_and_rates(file: Path) -> None:
    config = load_config(file)
    assert config.training.num_epochs == 50
    assert final_tile_size(config) == 512
    first, last = (stage.config for stage in stages_of(config))
    assert first is config
    assert (last.optimizer.lr, last.optimizer.param_groups[0].lr, last.scheduler.max_lr) == (1e-5, 1e-6, 1e-4)


def test_epochs_by_flag_contradict_stages(file: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^--epochs \(training\.num_epochs\) contradicts training\.stages, whose epochs are 30 \+ 20; leave it",
    ):
        load_config(file, {"training.num_epochs": 9})
    stored = load_config(file).to_dict()
    plain = config_from_dict({"training": {"num_epochs": 9}})
    with pytest.raises(ConfigError, match=r"contradicts training\.stages"):
        merge(stored, plain, {"training.num_epochs": 9})
    off = load_config(file, {"training.num_epochs": 9, "training.stages": []})
    assert off.training.num_epochs == 9


def test_epochs_in_the_file_are_told_of(file: Path) -> None:
    assert notices(load_config(file)) == []
    file.write_text(STAGED.replace("training:", "training:\n  num_epochs: 7"), encoding="utf-8")
    config = load_config(file)
    assert config.training.num_epochs == 50
    assert notices(config) == ["training.num_epochs is not used beside training.stages, whose epochs make 50"]
    assert notices(config_from_dict(config.to_dict())) == []  # a resolved configuration: nobody asked for 50


def test_the_rate_flag_scales_the_stages_own_rates(file: Path) -> None:
    config = load_config(file, {"optimizer.lr": 2e-4})
    rates = [(s.config.optimizer.lr, s.config.optimizer.param_groups[0].lr) for s in stages_of(config)]
    assert rates == [(2e-4, 2e-5), (2e-5, 2e-6)]


def test_the_rate_flag_scales_what_only_the_checkpoint_gives(file: Path, tmp_path: Path) -> None:
    """The file has the groups, the checkpoint the stages and the peak: none may undo the flag."""
    stored = load_config(file).to_dict()
    groups = tmp_path / "groups.yaml"
    groups.write_text("optimizer: {lr: 0.0001, param_groups: [{name: backbone, lr: 0.00001}]}\n", encoding="utf-8")
    flags = {"optimizer.lr": 2e-5}
    resumed = merge(stored, load_config(groups, flags), flags)
    rates = [(s.config.optimizer.lr, s.config.optimizer.param_groups[0].lr) for s in stages_of(resumed)]
    assert rates == [(2e-5, 2e-6), (2e-6, 2e-7)]
    assert resumed.scheduler.max_lr == 2e-4
