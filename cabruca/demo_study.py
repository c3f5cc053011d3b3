"""The demo's study: six short trials on the practice plot, and the winner's settings at the demo's length.

Trials are judged on a second plot of their own, so that the quarter that the demo holds out has no say in what is
chosen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.commands import command
from cabruca.config.load import load_config, to_yaml
from cabruca.config.schema import Config
from cabruca.config.study import Study
from cabruca.config.views import flat
from cabruca.data.synthetic import PlotFiles, draw_plot
from cabruca.tracking.files import write_atomic
from cabruca.tracking.study_dir import StudyDir, find_study
from cabruca.tracking.study_events import read
from cabruca.tracking.study_tables import heading_text, leaderboard_text
from cabruca.tuning import begin, closing

JUDGE_PX = 512
"""Side of the plot that trials are judged on."""

TRIAL_EPOCHS = 4
TRIAL_WINDOWS = 32
TRIAL_WARMUP = 8
"""Optimizer steps; a trial has 32 in all."""

SPACE: Mapping[str, Any] = {
    "optimizer.lr": {"loguniform": [2.0e-4, 1.5e-3]},
    "optimizer.weight_decay": {"loguniform": [1.0e-3, 1.0e-1]},
}


@dataclass(frozen=True)
class Searched:
    """A study that has ended.

    Attributes:
        study, folder: it and where it lies. exit_code: 0, or that of a study that was interrupted.
    """

    study: Study
    folder: StudyDir
    exit_code: int

    def board(self) -> str:
        """The leaderboard with its heading."""
        state = read(self.folder.results)
        return f"{heading_text(self.study, state)}\n{leaderboard_text(self.study, state)}"

    def next_steps(self) -> list[str]:
        """Where everything of it is."""
        token = command("get-auth-token", program="ray")
        dashboard = f"Ray           a dashboard while a study runs; its first lines say where; token: {token}"
        return [*closing(self.study, self.folder), dashboard]


def search(base: Config, output_dir: Path, *, trials: int, seed: int, quiet: bool) -> Searched:
    """Run the study below `output_dir`.

    Args:
        base: the demo's own configuration; its length, its validation and its warm-up become those of a trial.

    Raises:
        CabrucaError: one line, such as that Ray cannot start here.
    """
    judge = draw_plot(output_dir / "judge", size_px=JUDGE_PX, seed=seed + 1)
    name = time.strftime("practice_%Y%m%d_%H%M%S")
    path = write_study(base, judge, output_dir / "study", name=name, trials=trials, seed=seed)
    result = begin(path, quiet=quiet, closes=False)
    folder = find_study(name, output_dir)
    return Searched(folder.load(), folder, result.exit_code)


def write_study(base: Config, judge: PlotFiles, folder: Path, *, name: str, trials: int, seed: int) -> Path:
    """`<name>.yaml` and its base.yaml, as a user would write them; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "base.yaml", to_yaml(base))
    study = {
        "name": name,
        "config": str(folder / "base.yaml"),
        "set": {
            "data.val_dir": str(judge.images_dir),
            "data.val_annotations": str(judge.train_annotations),
            "data.windows_per_epoch": TRIAL_WINDOWS,
            "scheduler.warmup_steps": TRIAL_WARMUP,
            "training.log_interval": TRIAL_WINDOWS // base.data.batch_size,
            "validation.frequency": 1,
            "tracking.mlflow": True,
        },
        "num_trials": trials,
        "max_epochs": TRIAL_EPOCHS,
        "max_concurrent_trials": 2,
        "search_space": dict(SPACE),
        "sampler": {"type": "tpe", "seed": seed},
        "scheduler": {"type": "asha", "grace_period": 1, "reduction_factor": 2},
        "points_to_evaluate": [{key: value for key, value in flat(base).items() if key in SPACE}],
    }
    write_atomic(folder / f"{name}.yaml", to_yaml(study))
    return folder / f"{name}.yaml"


def winner(found: Searched, base: Config) -> Config:
    """best_config.yaml at the demo's own length."""
    length = {
        "data.val_dir": base.data.val_dir,
        "data.val_annotations": base.data.val_annotations,
        "data.windows_per_epoch": base.data.windows_per_epoch,
        "scheduler.warmup_steps": base.scheduler.warmup_steps,
        "training.log_interval": base.training.log_interval,
        "training.num_epochs": base.training.num_epochs,
        "validation.frequency": base.validation.frequency,
    }
    return load_config(found.folder.best_config, length)
