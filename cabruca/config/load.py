"""From a file, flags and a checkpoint to one `Config`, and back to text.

Layers, weakest first: the schema's defaults, a checkpoint (on resume), the file, the flags. Unknown keys and
wrong values are refused in one line that names the dotted key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cabruca.config.keys import leaves
from cabruca.config.layers import LR, apply_overrides, set_key, without_empty_sections
from cabruca.config.messages import explain
from cabruca.config.redact import redact
from cabruca.config.rules import refuse_epochs_beside_stages, stage_notice
from cabruca.config.schema import Config
from cabruca.config.strict_yaml import dump_yaml, parse_json, parse_own, parse_yaml
from cabruca.config.views import differences, explicit_keys
from cabruca.errors import ConfigError

__all__ = [
    "apply_overrides",
    "config_from_dict",
    "differences",
    "explicit_keys",
    "load_config",
    "merge",
    "notices",
    "parse_value",
    "read_raw",
    "redact",
    "scale_learning_rates",
    "to_yaml",
]


def load_config(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration in a YAML or JSON file, under dotted overrides.

    An override of `optimizer.lr` scales the rates of the file's parameter groups by the same factor.

    Args:
        path: the file; None: the defaults.
        overrides: dotted key -> value, e.g. `{"data.batch_size": 2}`; stronger than the file.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a value that breaks its rule, a number of epochs
            beside stages.
    """
    raw = {} if path is None else read_raw(path)
    overrides = overrides or {}
    merged = apply_overrides(raw, overrides)
    config = _validate(merged, str(path) if path is not None else "", overrides)
    refuse_epochs_beside_stages(config, overrides)
    return config


def config_from_dict(raw: Mapping[str, Any]) -> Config:
    """The configuration in plain containers (from a checkpoint, a study).

    Raises:
        ConfigError: an unknown key, or a value that breaks its rule.
    """
    return _validate(without_empty_sections(raw), "", {})


def read_raw(path: str | Path) -> dict[str, Any]:
    """The file as plain containers, not yet checked against the schema.

    Raises:
        ConfigError: absent, not readable, empty, not YAML or JSON, or not a mapping.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"configuration {path} is a folder; give the YAML or JSON file in it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"configuration {path} does not exist; check the path given to --config") from None
    except UnicodeDecodeError:
        raise ConfigError(f"configuration {path} is not UTF-8 text; give a YAML or JSON file") from None
    except OSError as error:
        raise ConfigError(f"configuration {path} cannot be read ({error.strerror}); check its permissions") from None
    raw = (
        parse_json(text, str(path)) if path.suffix.lower() == ".json" and text.strip() else parse_yaml(text, str(path))
    )
    if raw is None:
        raise ConfigError(f"configuration {path} is empty; write at least one key, such as 'device: auto'")
    if not isinstance(raw, dict):
        raise ConfigError(f"configuration {path} holds a {type(raw).__name__}, not a mapping; write 'key: value' lines")
    return raw


def read_own(path: Path) -> dict[str, Any]:
    """A config.yaml that cabruca has written, as plain containers, in a ninth of `read_raw`'s time.

    Returns:
        An empty mapping of a file that is not there, or not whole: who looks on does not mend it.
    """
    try:
        raw = parse_own(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def parse_value(text: str) -> Any:
    """The value in `--set key=text`, read as YAML: `1e-4`, `true`, `null`, `[1, 2]`, plain text.

    Raises:
        ConfigError: not YAML.
    """
    if "#" in text and text.strip()[:1] not in ("'", '"', "[", "{"):
        return text  # to YAML it would be a comment, and the rest of the value would be lost in silence
    return parse_yaml(text, f"value '{text}'")


def to_yaml(values: Config | Mapping[str, Any]) -> str:
    """YAML text; loading it gives the same configuration back, bit for bit."""
    return dump_yaml(values.to_dict() if isinstance(values, Config) else dict(values))


def notices(source: Config | Mapping[str, Any]) -> list[str]:
    """One line for each key that was given and is not used.

    A configuration that gives every key there is, is a resolved one (a run's config.yaml, a checkpoint's): nobody asked
    for what stands in it.
    """
    config = source if isinstance(source, Config) else config_from_dict(source)
    given = explicit_keys(config)
    resolved = given.keys() >= dict(leaves()).keys()
    lines = [] if resolved else stage_notice(config, given)
    if config.model.sam_checkpoint is not None:
        lines.append("model.sam_checkpoint is accepted and never read: cabruca has no SAM branch")
    return lines


def merge(checkpoint: Mapping[str, Any], config: Config, flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a resumed run: checkpoint < file < flags.

    Args:
        checkpoint: the configuration stored in the checkpoint, as plain containers.
        config: file and flags, as `load_config` gave them.
        flags: the dotted keys among them that were flags: `optimizer.lr` there also scales what comes from the
            checkpoint of the groups' and stages' rates and onecycle's peak; what the file gives is scaled already.

    Raises:
        ConfigError: the mixture breaks a rule.
    """
    explicit = explicit_keys(config)
    base: Mapping[str, Any] = checkpoint
    if flags and LR in flags:
        base = apply_overrides(base, {LR: flags[LR]})
    for key, value in explicit.items():
        base = set_key(base, key, value)
    merged = config_from_dict(base)
    refuse_epochs_beside_stages(merged, flags or ())
    return merged


def scale_learning_rates(config: Config, lr: float) -> Config:
    """`optimizer.lr` becomes `lr`; the rate of every parameter group is scaled by lr / optimizer.lr.

    Raises:
        ConfigError: `lr` is not a finite number above 0.
    """
    return config_from_dict(apply_overrides(config.to_dict(), {LR: lr}))


def _validate(raw: Mapping[str, Any], source: str, overrides: Mapping[str, Any]) -> Config:
    try:  # through JSON: strict there still lets a list become a tuple
        return Config.model_validate_json(json.dumps(raw, default=_refuse))
    except ValidationError as error:
        path, line = explain(error, raw)
    except ValueError:
        raise ConfigError(f"{source or 'the configuration'} refers to itself (an alias inside its anchor)") from None
    name = ".".join(str(part) for part in path)
    # a section's check may be broken by file and flag together: then neither is blamed
    by_flag = any(name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.") for key in overrides)
    raise ConfigError(line if by_flag or not source else f"{source}: {line}")


def _refuse(value: Any) -> Any:
    raise ConfigError(f"'{value}' is a {type(value).__name__}; write plain numbers, text, lists and mappings")
