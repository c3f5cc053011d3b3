"""A checked configuration seen as dotted keys: what was set, what differs."""

from __future__ import annotations

from typing import Any

from cabruca.config.keys import leaves
from cabruca.config.schema import Config, Section


def differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value in a, value in b), where they differ."""
    left, right = flat(a), flat(b)
    return {key: (left[key], right[key]) for key in left if left[key] != right[key]}


def explicit_keys(config: Config) -> dict[str, Any]:
    """Dotted key -> value, only what the file or the flags set (defaults left out)."""
    out: dict[str, Any] = {}

    def walk(section: Section, prefix: str) -> None:
        for name in section.model_fields_set:
            value = getattr(section, name)
            if isinstance(value, Section):
                walk(value, f"{prefix}{name}.")
            else:
                out[prefix + name] = plain(value)

    walk(config, "")
    return dict(sorted(out.items()))


def flat(config: Config) -> dict[str, Any]:
    """Dotted key -> value, in the schema's order (a list of sections is one value)."""
    out: dict[str, Any] = {}
    for key, _ in leaves():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        out[key] = value
    return out


def plain(value: Any) -> Any:
    """Tuples and sections as lists and mappings."""
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    return [plain(v) for v in value] if isinstance(value, tuple) else value
