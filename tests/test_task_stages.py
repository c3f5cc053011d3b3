"""The network's own task in stages: windows of each stage's size over one set of opened pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_farm import farm_settings, write_farm

from cabruca import task as task_module
from cabruca.config.load import load_config
from cabruca.config.schema import Config
from cabruca.runtime import Runtime
from cabruca.task import CabrucaTask

STAGES = [{"tile_size": 64, "epochs": 2}, {"tile_size": 96, "epochs": 1}, {"tile_size": 64, "epochs": 1}]
SIZES = [64, 64, 96, 64, 64]


def config_of(folder: Path, **changes: Any) -> Config:
    settings = {k: v for k, v in farm_settings(folder, folder).items() if k != "training.num_epochs"}
    return load_config(None, {**settings, **{key.replace("__", "."): value for key, value in changes.items()}})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(write_farm(tmp_path, pictures=2), training__stages=STAGES)


def sizes(task: CabrucaTask, runtime: Runtime, **cut: Any) -> list[int]:
    return [next(iter(task.train_batches(e, [[0, 1]], runtime))).images.shape[-1] for e in range(5)]


def every_stage_has_its_windows(config: Config) -> None:
    task = CabrucaTask(config)
    task.prepare()
    assert sizes(task, Runtime.single()) == SIZES
    assert [task.num_train_samples(epoch) for epoch in range(4)] == [2 * 4, 2 * 4, 2 * 2, 2 * 4]  # 128 px pictures


def test_every_stage_has_its_windows(config: Config) -> None:
    every_stage_has_its_windows(config)


def test_fault_10_progressive_training_put_back_is_seen(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe on paper: the run never looks at its stages."""
    monkeypatch.setattr(task_module, "tile_size_at", lambda config, epoch: config.data.tile_size)
    with pytest.raises(AssertionError):
        every_stage_has_its_windows(config)


def test_pictures_are_opened_once_and_the_last_stage_is_what_a_model_is_for(config: Config) -> None:
    task = CabrucaTask(config)
    assert task.state()["input"]["tile_size"] == 64
    assert task.windows_at(0).pictures is task.windows_at(2).pictures
    assert task.windows_at(0) is task.windows_at(1) is task.windows_at(3)
    shorter = CabrucaTask(config_of(Path(config.output_dir), training__stages=STAGES[:2]))
    assert shorter.state()["input"]["tile_size"] == 96


def test_a_window_is_that_of_a_run_of_its_size(config: Config) -> None:
    """A stage changes the size of windows and nothing else of how they are drawn."""
    spec = replace(CabrucaTask(config).spec, tile_size=96)
    alone = CabrucaTask(config_of(Path(config.output_dir), data__tile_size=96), spec)
    ours, theirs = (next(iter(t.train_batches(2, [[0, 3]], Runtime.single()))) for t in (CabrucaTask(config), alone))
    assert torch.equal(ours.images, theirs.images)
    assert [len(c) for c in ours.crowns] == [len(c) for c in theirs.crowns]


def test_loader_processes_of_a_stage_end_with_it(config: Config) -> None:
    task = CabrucaTask(config)
    assert sizes(task, Runtime.single(loaders=1)) == SIZES
    assert not task.windows_at(2).loaders
    assert task.windows_at(3).loaders
    task.windows_at(3).loaders.clear()
