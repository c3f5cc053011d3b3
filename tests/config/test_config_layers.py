"""Defaults < checkpoint < file < flags; `--lr` moves every group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cabruca.config import layers
from cabruca.config.load import (
    config_from_dict,
    differences,
    explicit_keys,
    load_config,
    merge,
    notices,
    redact,
    scale_learning_rates,
)
from cabruca.config.schema import Config
from cabruca.errors import ConfigError

GROUPS = [{"name": "backbone", "lr": 1e-5}, {"name": "heads"}, {"name": "custom", "lr": 2e-4, "weight_decay": 0.001}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    groups = "".join(f"    - {group}\n" for group in GROUPS).replace("'", "")
    path.write_text(f"optimizer:\n  lr: 1e-4\n  param_groups:\n{groups}data: {{tile_size: 256}}\n", encoding="utf-8")
    return path


def rates(config: Config) -> list[float | None]:
    return [config.optimizer.lr, *(group.lr for group in config.optimizer.param_groups)]


def test_dotted_overrides_are_stronger_than_the_file(file: Path) -> None:
    config = load_config(file, {"data.tile_size": 96, "data.batch_size": 8, "device": "cpu", "training.seed": 7})
    assert (config.data.tile_size, config.data.batch_size, config.device, config.training.seed) == (96, 8, "cpu", 7)
    assert config.optimizer.lr == 1e-4


def test_overrides_reach_into_lists_and_free_names(file: Path) -> None:
    config = load_config(file, {"optimizer.param_groups.2.lr": 3e-4, "data.category_map.P. dactylifera": "shade_tree"})
    assert config.optimizer.param_groups[2].lr == 3e-4
    assert config.optimizer.param_groups[0].lr == 1e-5
    assert config.data.category_map == {"P. dactylifera": "shade_tree"}


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("data.bacth_size", "data.bacth_size is not a known key; did you mean 'batch_size'?"),
        ("bogus.key", "bogus is not a known key; the configuration knows"),
        ("data.tile_size.x", "data.tile_size.x: data.tile_size is not a section; set it as a whole"),
        ("data..x", "'data..x' is not a dotted key; write section.key=value"),
        ("optimizer.param_groups.7.lr", "optimizer.param_groups.7.lr: '7' is no place in a list of 3; count from 0"),
    ],
)
def test_overrides_that_lead_nowhere(file: Path, key: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, {key: 1})
    assert str(caught.value).startswith(line), "and the file is not blamed for a flag"


def test_a_flag_may_mend_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("training: {precision: bf16}", encoding="utf-8")
    assert load_config(tmp_path / "c.yaml", {"training.mixed_precision": True}).training.precision == "bf16"


def check_fault_18(file: Path) -> None:
    """`--lr` really changes the rate of every group, by the same factor."""
    assert rates(load_config(file, {"optimizer.lr": 1e-5})) == [1e-5, 1e-6, None, 2e-5]


def test_fault_18_lr_scales_every_group(file: Path) -> None:
    check_fault_18(file)


def test_fault_18_put_back_is_seen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_scale_rates", lambda raw, lr: raw)  # each group keeps its own rate
    with pytest.raises(AssertionError):
        check_fault_18(file)


def test_scaled_rates_are_the_decimal_ones(file: Path) -> None:
    config = scale_learning_rates(load_config(file), 3e-4)
    assert rates(config) == [3e-4, 3e-5, None, 6e-4]
    assert config.optimizer.param_groups[2].weight_decay == 0.001


def test_group_rates_given_as_flags_are_not_scaled(file: Path) -> None:
    config = load_config(file, {"optimizer.param_groups.0.lr": 7e-6, "optimizer.lr": 1e-3})
    assert rates(config) == [1e-3, 7e-6, None, 2e-3]


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_that_are_none_are_refused(file: Path, lr: float) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        scale_learning_rates(load_config(file), lr)


def test_differences_are_dotted() -> None:
    a, b = Config(), config_from_dict({"data": {"batch_size": 2}, "model": {"heads": ["semantic"]}, "device": "cpu"})
    assert differences(a, a) == {}
    assert differences(a, b) == {
        "device": ("auto", "cpu"),
        "model.heads": (("instance", "semantic", "crown", "density"), ("semantic",)),
        "data.batch_size": (4, 2),
    }


def test_explicit_keys_are_what_file_and_flags_said(file: Path) -> None:
    found = explicit_keys(load_config(file, {"training.seed": 0}))
    assert set(found) == {"optimizer.lr", "optimizer.param_groups", "data.tile_size", "training.seed"}
    assert found["training.seed"] == 0, "a default that was said counts"


def merged(flags: dict[str, Any], file: dict[str, Any], checkpoint: dict[str, Any]) -> Config:
    raw = layers.apply_overrides(file, flags)
    return merge(config_from_dict(checkpoint).to_dict(), config_from_dict(raw), flags)


def test_resume_takes_checkpoint_then_file_then_flags() -> None:
    config = merged(
        flags={"training.num_epochs": 9},
        file={"training": {"num_epochs": 5, "gradient_clip": 2.0}},
        checkpoint={"training": {"num_epochs": 3, "gradient_clip": 3.0, "seed": 11}, "data": {"tile_size": 96}},
    )
    training = config.training
    assert (training.num_epochs, training.gradient_clip, training.seed) == (9, 2.0, 11)
    assert config.data.tile_size == 96


def test_resume_with_lr_scales_the_groups_of_the_checkpoint() -> None:
    checkpoint = {"optimizer": {"lr": 1e-4, "param_groups": GROUPS}}
    assert rates(merged({"optimizer.lr": 1e-5}, {}, checkpoint)) == [1e-5, 1e-6, None, 2e-5]


def test_resume_with_lr_and_groups_in_the_file_scales_once() -> None:
    stage = {"optimizer": {"lr": 1e-4, "param_groups": GROUPS}}
    assert rates(merged({"optimizer.lr": 1e-5}, stage, stage)) == [1e-5, 1e-6, None, 2e-5]


def test_a_key_that_is_never_read_is_told() -> None:
    (line,) = notices({"data": {"test_dir": "elsewhere"}, "model": {"sam_checkpoint": "sam.pth"}})
    assert line.startswith("model.sam_checkpoint is accepted and never read")


def test_redact_hides_secrets_and_nothing_else() -> None:
    values = {
        "tracking": {"mlflow_uri": "postgresql://me:p@ss@host:5/db", "wandb_api_key": "k", "wandb_entity": "team"},
        "env": [{"MLFLOW_TRACKING_PASSWORD": 1}, {"HF_TOKEN": "t"}, {"client_secret": ["a", "b"]}, {"APIKEY": "x"}],
        "url": "https://host/x?token=abc&y=1&api_key=z",
        "has_password": True,
        "token": None,
        "plain": ["sqlite:///outputs/mlflow.db", "a:b@c", 1e-7, None, ("x",)],
    }
    assert redact(values) == {
        "tracking": {"mlflow_uri": "postgresql://me:***@host:5/db", "wandb_api_key": "***", "wandb_entity": "team"},
        "env": [{"MLFLOW_TRACKING_PASSWORD": "***"}, {"HF_TOKEN": "***"}, {"client_secret": "***"}, {"APIKEY": "***"}],
        "url": "https://host/x?token=***&y=1&api_key=***",
        "has_password": True,
        "token": None,
        "plain": ["sqlite:///outputs/mlflow.db", "a:b@c", 1e-7, None, ["x"]],
    }
    assert redact(Config().to_dict()) == Config().to_dict(), "nothing of ours looks like a secret"
