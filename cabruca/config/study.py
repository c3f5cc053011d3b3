"""A study: what is searched over which base configuration, by which sampler and scheduler, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cabruca.config.schema import Config
from cabruca.config.search_space import SearchSpace
from cabruca.config.study_schema import StudyConfig

__all__ = ["Direction", "Study", "StudyConfig", "best_config", "load_study", "trial_config"]

Direction = Literal["maximize", "minimize"]

STUDY = "study."
"""Overrides that begin with it set keys of the study (`study.num_trials`), all others keys of the base."""


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes:
        config: its own settings. base: the base configuration, with the study's `set` and the flags.
        space: what is searched.
    """

    config: StudyConfig
    base: Config
    space: SearchSpace

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is made best, full names; the first one decides a trial's best epoch."""
        raise NotImplementedError

    @property
    def directions(self) -> tuple[Direction, ...]:
        """One a metric, in Optuna's words."""
        raise NotImplementedError

    @property
    def max_epochs(self) -> int:
        """Epochs of a trial that nothing stops."""
        raise NotImplementedError


def load_study(
    path: str | Path, overrides: Mapping[str, Any] | None = None, *, base: str | Path | None = None
) -> Study:
    """The study in a YAML or JSON file, checked whole.

    Args:
        path: of the study's file. The base configuration it names is looked for from the working directory, then
            from the file's folder.
        overrides: dotted key -> value, stronger than the files: `study.num_trials` and the like set the study's keys,
            all others those of the base configuration.
        base: a base configuration instead of the one it names, in which its `set` is done already (that of the study's
            folder, on a resume).

    Raises:
        ConfigError: one line: the value, the rule it breaks, the remedy.
    """
    raise NotImplementedError


def trial_config(study: Study, params: Mapping[str, Any], *, number: int, folder: Path) -> Config:
    """The configuration of a trial: a run named `trial_0007` in `folder`.

    Raises:
        ConfigError: the parameters together break a rule.
    """
    raise NotImplementedError


def best_config(study: Study, params: Mapping[str, Any]) -> Config:
    """The configuration that `cabruca train` repeats a trial with: the same numbers, its own folder.

    Raises:
        ConfigError: the parameters together break a rule.
    """
    raise NotImplementedError
