"""Every `python train.py ...` of the predecessor's README, given to our command, sets what it says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from predecessor_items import items

from cabruca.cli.options import read_flags
from cabruca.cli.train import KEYS, train
from cabruca.config.load import load_config
from cabruca.config.views import flat

ROOT = Path(__file__).resolve().parents[2]
NOT_KEYS = {"config_path", "resume", "init_from", "assignments", "dry_run", "quiet", "as_json"}
SETS = {
    "--lr": ("optimizer.lr", float),
    "--batch-size": ("data.batch_size", int),
    "--grad-accum": ("training.gradient_accumulation_steps", int),
    "--epochs": ("training.num_epochs", int),
    "--device": ("device", str),
    "--experiment-name": ("experiment_name", str),
    "--use-mlflow": ("tracking.mlflow", None),
    "--use-wandb": ("tracking.wandb", None),
    "--mixed-precision": ("training.mixed_precision", None),
    "--compile": ("training.compile", None),
}
"""Flag of its README -> key and type; None: a switch."""


def understood(words: list[str]) -> dict[str, Any]:
    """The configuration that our command makes of the words, as dotted keys."""
    context = train.make_context("train", list(words))
    flags = {name: value for name, value in context.params.items() if name not in NOT_KEYS}
    config = load_config(ROOT / context.params["config_path"], read_flags(KEYS, flags, context.params["assignments"]))
    return flat(config)


def test_every_command_of_its_readme_is_understood(predecessor: Path) -> None:
    commands = [item for item in items(predecessor) if item.startswith("python train.py")]
    assert len(commands) == 18
    for command in commands:
        words = shlex.split(command)[2:]
        config = understood(words)
        for flag, (key, kind) in SETS.items():
            if flag in words:
                said = True if kind is None else kind(words[words.index(flag) + 1])
                assert config[key] == said, f"{flag} of: {command}"


def test_a_flag_it_did_not_have_would_be_seen() -> None:
    with pytest.raises(Exception, match="No such option"):
        understood(["--config", "configs/training_config.yaml", "--warp"])
