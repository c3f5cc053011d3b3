"""Writes MODEL_CARD.md when a run begins and when it ends, and once more when it has been tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cabruca.config.redact import redact
from cabruca.config.schema import Config
from cabruca.tracking.card_data import SetFacts, set_facts
from cabruca.tracking.files import write_atomic
from cabruca.tracking.model_card import gather, model_card
from cabruca.tracking.run_dir import RunDir
from cabruca.train.protocols import BaseCallback, RunInfo, TrainResult


class ModelCard(BaseCallback):
    """Counts the data once.

    Args:
        task: `state()` of the run's task.
    """

    def __init__(self, run_dir: RunDir, config: Config, task: Mapping[str, Any]) -> None:
        self._run_dir, self._config, self._task = run_dir, config, task
        self._sets: Sequence[SetFacts] = ()

    def on_start(self, info: RunInfo) -> None:
        self._sets = sets_of(self._config)
        write_card(self._run_dir, self._config, self._task, self._sets)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        write_card(self._run_dir, self._config, self._task, self._sets)


def sets_of(config: Config) -> list[SetFacts]:
    """Training and validation, as their files say."""
    data = config.data
    files = {"training": data.train_annotations, "validation": data.val_annotations}
    return [set_facts(name, file, data.category_map) for name, file in files.items()]


def write_card(
    run_dir: RunDir, config: Config, task: Mapping[str, Any], sets: Sequence[SetFacts] | None = None
) -> None:
    """Write the card anew, whole or not at all.

    Args:
        sets: None: they are counted now.
    """
    card = gather(run_dir, config, redact(dict(task)), sets_of(config) if sets is None else sets)
    write_atomic(run_dir.model_card, redact(model_card(card)))
