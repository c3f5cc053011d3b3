"""What can be found wrong before the first step is found here, before a run claims its folder."""

from __future__ import annotations

from torch import nn

from cabruca.config.schema import Config
from cabruca.train.monitor import check_monitor
from cabruca.train.optim import parameter_groups
from cabruca.train.protocols import Task, TaskAround, prepare
from cabruca.train.unfreezing import Thaw


class Ready(TaskAround):
    """A `Task` whose data is open and whose first model is built.

    Args:
        task: the task itself.
        model: given out by the first `build_model`; later ones are built anew.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__(task)
        self._model: nn.Module | None = model

    def build_model(self) -> nn.Module:
        model, self._model = self._model, None
        return self._task.build_model() if model is None else model


def make_ready(config: Config, task: Task) -> Ready:
    """Check the monitored metric, open the data, build the model and divide its parameters.

    Raises:
        ConfigError: a metric that is not measured, a parameter group that takes nothing, a part to unfreeze that is
            not there, an unknown backbone.
        DataError: training or validation data that cannot be used. CheckpointError: weights that do not fit.
    """
    check_monitor(config, task)
    prepare(task)
    model = task.build_model()
    parameter_groups(model, config.optimizer, task.parameter_part)
    Thaw(model, config.training.unfreeze, task.parameter_part)
    return Ready(task, model)
