"""What is inside a checkpoint, for people: settings that differ from the defaults, classes, input, parts, versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cabruca.config.keys import leaves
from cabruca.config.load import config_from_dict
from cabruca.config.redact import redact
from cabruca.config.views import flat, plain
from cabruca.errors import CheckpointError, ConfigError
from cabruca.train import checkpoint

_STATISTICS = (".running_mean", ".running_var")


def describe(path: Path) -> dict[str, Any]:
    """Plain containers: `path, epoch, step, stage, threads, best, versions, classes, input, settings, parts`.

    `settings` are those that are not the defaults. `parts`: first name of the tensors -> how many tensors, and how many
    learnt numbers (a batch norm's statistics are not learnt).

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint of ours.
    """
    state = checkpoint.read(path)
    weights, task = state.get("model"), state.get("task")
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"checkpoint {path} holds no weights; use another checkpoint of the run")
    spec = dict(task.get("input") or {}) if isinstance(task, Mapping) else {}
    classes = {kind: list(spec.pop(f"{kind}_classes", ())) for kind in ("instance", "semantic")}
    best = state.get("best") or {}
    return {
        "path": str(path),
        **{key: state.get(key) for key in ("epoch", "step", "stage", "threads")},
        "best": {"value": best.get("value"), "epoch": best.get("epoch")},
        "versions": dict(state.get("versions") or {}),
        "classes": classes,
        "input": spec,
        "settings": _settings(path, state.get("config")),
        "parts": parts_of(weights),
    }


def parts_of(weights: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """First name -> `{tensors, parameters}`."""
    out: dict[str, dict[str, int]] = {}
    for name, value in weights.items():
        if isinstance(value, Tensor):
            part = out.setdefault(name.split(".", 1)[0], {"tensors": 0, "parameters": 0})
            part["tensors"] += 1
            learnt = value.is_floating_point() and not name.endswith(_STATISTICS)
            part["parameters"] += value.numel() if learnt else 0
    return out


def _settings(path: Path, stored: Any) -> dict[str, Any]:
    if not isinstance(stored, Mapping):
        return {}
    try:
        now = flat(config_from_dict(stored))
    except ConfigError as error:
        raise CheckpointError(f"the configuration inside {path} is not one of this release: {error}") from error
    shown = {key: plain(now[key]) for key, default in leaves() if now[key] != default}
    found: dict[str, Any] = redact(shown)
    return found
