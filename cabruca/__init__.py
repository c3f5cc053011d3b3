"""cabruca: trains the network that maps cacao and shade trees in drone imagery of cabruca agroforest.

Four functions are offered here, imported when first used, so that `import cabruca` costs nothing::

    config = cabruca.load_config("configs/training_config.yaml", {"training.num_epochs": 5})
    result = cabruca.train(config)
    numbers = cabruca.evaluate("outputs/run/checkpoints/checkpoint_best.pth", "images", "truth.json")
    summary = cabruca.predict("outputs/run/checkpoints/checkpoint_best.pth", "ortho.tif", "farm.gpkg")
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cabruca._version import __version__

if TYPE_CHECKING:
    from cabruca.config.load import load_config as load_config
    from cabruca.evaluation import evaluate as evaluate
    from cabruca.launch import predict as predict
    from cabruca.launch import train as train

__all__ = ["__version__", "evaluate", "load_config", "predict", "train"]

_OFFERED = {"load_config": "cabruca.config.load", "evaluate": "cabruca.evaluation"}


_ROOMS = ("train", "predict")


class _CallableRoom(ModuleType):
    """The package `cabruca.train`, which is also the function `cabruca.train(config, ...)`; likewise `predict`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        launch = importlib.import_module("cabruca.launch")
        return getattr(launch, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """Names of a package and of an offered function too: whenever one is imported, it is made both."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ROOMS and isinstance(value, ModuleType):
            value.__class__ = _CallableRoom
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"cabruca.{name}")
    if name in _OFFERED:
        return getattr(importlib.import_module(_OFFERED[name]), name)
    raise AttributeError(f"module 'cabruca' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
