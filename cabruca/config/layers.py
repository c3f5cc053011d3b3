"""Layers of a configuration before it is checked: plain containers under dotted overrides."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeGuard

from cabruca.config.keys import is_open, leaves, section_at, section_of
from cabruca.config.schema import Config, Section
from cabruca.errors import ConfigError

LR = "optimizer.lr"


def apply_overrides(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` with dotted keys set; numbers index into lists (`optimizer.param_groups.0.lr`). `raw` is untouched.

    `optimizer.lr` also scales the rates of the groups and of the stages and the peak of onecycle in `raw`; rates among
    the overrides stay as given.

    Raises:
        ConfigError: a key leads through something that is not a section, or past the end of a list.
    """
    out = without_empty_sections(raw)
    if LR in overrides:
        out = _scale_rates(out, overrides[LR])
    for key, value in overrides.items():
        out = set_key(out, key, value)
    return out


def _scale_rates(raw: dict[str, Any], lr: Any) -> dict[str, Any]:
    optimizer = raw.get("optimizer", {})
    before = optimizer.get("lr", dict(leaves())[LR]) if isinstance(optimizer, dict) else None
    if not _is_rate(lr) or not _is_rate(before):
        return raw  # a value that validation will refuse
    out = dict(raw)
    if isinstance(groups := optimizer.get("param_groups"), list):
        out["optimizer"] = {**optimizer, "param_groups": [_scale(group, "lr", before, lr) for group in groups]}
    training = raw.get("training")
    if isinstance(training, dict) and isinstance(stages := training.get("stages"), list):
        out["training"] = {**training, "stages": [_scale(stage, "lr", before, lr) for stage in stages]}
    if "scheduler" in raw:
        out["scheduler"] = _scale(raw["scheduler"], "max_lr", before, lr)
    return out


def _scale(section: Any, key: str, before: float, after: float) -> Any:
    if not isinstance(section, dict) or not _is_rate(section.get(key)):
        return section
    # in decimals, as people wrote them: 1e-5 x 0.1 is 1e-6, not 1.0000000000000002e-06
    return {**section, key: float(Decimal(repr(section[key])) * Decimal(repr(after)) / Decimal(repr(before)))}


def _is_rate(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def set_key(raw: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    parts = _parts(key)
    out: dict[str, Any] = dict(raw)
    here: Any = out
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise ConfigError(f"{key}: '{part}' is no place in a list of {len(here)}; count from 0")
            index: Any = int(part)
        elif isinstance(here, dict):
            index = part
        else:
            raise ConfigError(f"{key}: {'.'.join(parts[:depth])} is not a section; set it as a whole")
        if last:
            here[index] = value
            break
        below = here.get(index) if isinstance(here, dict) else here[index]
        here[index] = {} if below is None else below.copy() if isinstance(below, (dict, list)) else below
        here = here[index]
    return out


def _parts(key: str) -> list[str]:
    """The dotted key in parts; below a mapping of free names the rest is one name, dots and all."""
    parts = key.split(".")
    if not all(parts):
        raise ConfigError(f"'{key}' is not a dotted key; write section.key=value, such as data.batch_size=2")
    for depth in range(len(parts) - 1):
        section = section_at(parts[:depth])
        if section and is_open(section, parts[depth]):
            return [*parts[: depth + 1], ".".join(parts[depth + 1 :])]
    return parts


def without_empty_sections(raw: Mapping[str, Any], section: type[Section] = Config) -> dict[str, Any]:
    """A section whose lines are all commented out is None to YAML and absent to people."""
    out: dict[str, Any] = {}
    for key, value in raw.items():
        field = section.model_fields.get(key)
        inner = section_of(field.annotation) if field and isinstance(field.annotation, type) else None
        if inner and value is None:
            continue
        out[key] = without_empty_sections(value, inner) if inner and isinstance(value, Mapping) else value
    return out
