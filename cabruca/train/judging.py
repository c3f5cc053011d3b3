"""When a run is validated, and what best, plateau and patience learn from it."""

from __future__ import annotations

from contextlib import nullcontext

from cabruca.config.schema import Config
from cabruca.runtime import Runtime
from cabruca.train.compiling import plain
from cabruca.train.learner import Learner
from cabruca.train.monitor import not_measured
from cabruca.train.protocols import Metrics, Task, Validation
from cabruca.train.shortage import is_shortage, validation_advice
from cabruca.train.state import Place


class Judge:
    """The same on every rank.

    Args:
        config, task, runtime: as given to `train`.
        learner: what is validated; its schedule hears the monitored metric.
        place: where the run is; keeps best value and patience.
    """

    def __init__(self, config: Config, task: Task, runtime: Runtime, learner: Learner, place: Place) -> None:
        self.config, self.settings = config, config.training
        self.task, self.runtime, self.learner, self.place = task, runtime, learner, place

    def validate(self) -> Validation | None:
        """Every `validation.frequency` epochs and after the last one; else None.

        Raises:
            OutOfMemory: it does not fit into memory; says what to set.
        """
        epoch = self.place.epoch
        if epoch % self.config.validation.frequency and epoch < self.settings.num_epochs:
            return None
        learner = self.learner
        learner.share_facts()
        try:
            with plain() if learner.compiled else nullcontext():
                return self.task.validate(learner.validated, self.runtime, learner.precision.autocast, epoch=epoch)
        except Exception as error:
            if not is_shortage(error):
                raise
            raise validation_advice(self.config, error) from error

    def judge(self, metrics: Metrics) -> bool:
        """Let best, patience and plateau see the monitored metric; True where it is the best so far.

        Raises:
            ConfigError: the metric is not among `metrics`.
        """
        name = self.settings.monitor_metric
        if name not in metrics:
            raise not_measured(name, [n for n in metrics if n.startswith(("val/", "train/"))])
        # rank 0's number decides for all: ranks that disagree in a last bit must not part ways
        value = float(self.runtime.gather(metrics[name])[0])
        self.learner.schedule.observe(value)
        return self.place.judge(value, minimize=self.settings.minimize_metric)

    def patience_is_out(self) -> bool:
        """Whether `training.early_stopping_patience` validations in a row brought nothing better, in the last stage."""
        patience = self.settings.early_stopping_patience
        last = self.learner.stage is self.learner.stages[-1]
        return last and 0 < patience <= self.place.validations_without_improvement
