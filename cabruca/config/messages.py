"""Pydantic's findings as one line for people: the value, the rule it breaks, the remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from cabruca.config.keys import dotted, leaves, section_at
from cabruca.config.redact import redact
from cabruca.config.schema import Config, Section
from cabruca.errors import did_you_mean

Path = tuple[str | int, ...]

_LIMITS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "{} or less"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
}
_KINDS = {  # the kinds of error -> (what the value is not, what to write)
    "int": ("a whole number", "write digits, such as 4"),
    "float": ("a number", "write a number, such as 0.01 or 1e-4"),
    "finite": ("a finite number", "write a number, such as 0.01 or 1e-4"),
    "bool": ("true or false", "write true or false, without quotes"),
    "string": ("text", "put it in quotes"),
    "tuple": ("a list", "write a list, such as [1, 2]"),
    "list": ("a list", "write a list, such as [1, 2]"),
    "dict": ("a mapping", "write 'name: value' lines under it"),
    "model": ("a section", "write 'key: value' lines under it"),
}
_TEXTS = {
    "string_pattern_mismatch": (
        "a folder name",
        "use letters, digits, '.', '_' and '-', at most 100, beginning with a letter or digit",
    ),
    "string_too_short": ("a name", "write one, or remove the entry"),
}


def explain(error: ValidationError, raw: Mapping[str, Any], root: type[Section] = Config) -> tuple[Path, str]:
    """Path of the first finding, and the sentence for it; further findings are named by their keys.

    Args:
        error: what pydantic found in `raw`.
        raw: the mapping that was validated, with the values as they were written.
        root: what it was validated as.
    """
    findings: dict[Path, list[dict[str, Any]]] = {}
    for item in error.errors(include_url=False):
        findings.setdefault(_clean(item["loc"], raw, root), []).append(dict(item))
    (path, items), *others = findings.items()
    line = _sentence(path, items, raw, root)
    if others:
        line += f" (and {len(others)} more: {', '.join(dotted(p) for p, _ in others[:5])})"
    return path, line


def _clean(loc: Sequence[str | int], raw: Any, root: type[Section]) -> Path:
    """The location without the parts that pydantic adds for the members of a union."""
    path: list[str | int] = []
    here = raw
    for part in loc:
        inside = isinstance(here, Mapping) and part in here
        inside = inside or (isinstance(here, list) and isinstance(part, int) and part < len(here))
        if inside:
            path.append(part)
            here = here[part]
        elif isinstance(here, Mapping) and part in getattr(section_at(path, root), "model_fields", {}):
            path.append(part)  # a required key that is missing
            break
        else:
            break
    return tuple(path)


def _sentence(path: Path, items: Sequence[dict[str, Any]], raw: Mapping[str, Any], root: type[Section]) -> str:
    item, name = items[0], dotted(path)
    kind, context = str(item["type"]), item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{name} is not a known key{_known(path, root)}"
    if kind == "missing" and isinstance(item["loc"][-1], int):  # a list of fixed length that is too short
        return f"{name}: {_shown(path, raw)} has too few values; {_default(path, root)}"
    if kind == "missing":
        owner = f"every entry of {dotted(path[:-1]).split('[')[0]}" if path[:-1] else "a study"
        return f"{name} is missing; {owner} needs a {path[-1]}"
    if kind == "value_error":  # our own checks: the message begins with the field's name
        return f"{name}.{context['error']}" if path else str(context["error"])
    value = f"{name}: {_shown(path, raw)}"
    if len(items) > 1:  # a union refuses in several ways, each of them true
        return f"{value} is not {' or '.join(_rule(i)[0] for i in items)}; {_default(path, root)}"
    rule, remedy = _rule(item)
    return f"{value} is not {rule}; {remedy or _default(path, root)}"


def _rule(item: Mapping[str, Any]) -> tuple[str, str]:
    """What the value is not, and what to do (empty: say the default)."""
    kind, context = str(item["type"]), item.get("ctx", {})
    if kind in _LIMITS:
        name, rule = _LIMITS[kind]
        return rule.format(context[name]), ""
    if kind == "literal_error":
        known = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        alone = len(known) == 1
        hint = did_you_mean(str(item["input"]).lower(), known).removeprefix("; ")
        return known[0] if alone else f"one of {', '.join(known)}", hint
    if kind in _TEXTS:
        return _TEXTS[kind]
    if kind == "too_short":
        wanted, given = context["min_length"], context["actual_length"]
        return f"a list of {wanted} or more values", f"give at least {wanted}, not {given}"
    if kind == "too_long":
        wanted = context["max_length"]
        return f"a list of {wanted} values", f"give {wanted} values, not {context['actual_length']}"
    return _KINDS.get(kind.split("_", maxsplit=1)[0], (str(item["msg"]), ""))


def _shown(path: Path, raw: Any) -> str:
    """The value as JSON, shortened, secrets hidden."""
    here = raw
    for part in path:
        here = here[part]
    text = json.dumps(redact({str(path[-1]) if path else "": here}), default=str)
    text = text[text.index(": ") + 2 : -1]
    return text if len(text) <= 60 else text[:57] + "..."


def _default(path: Path, root: type[Section]) -> str:
    defaults = dict(leaves(root))
    key = dotted(path).rstrip("]0123456789").rstrip("[") if path and isinstance(path[-1], int) else dotted(path)
    if key not in defaults or defaults[key] is PydanticUndefined:
        return "write such a value"
    value = defaults[key]
    return f"the default is {json.dumps(list(value) if isinstance(value, tuple) else value)}"


def _known(path: Path, root: type[Section]) -> str:
    """Where the unknown key may have been meant to stand, else what is known there."""
    key, section = str(path[-1]), section_at(path[:-1], root)
    known = list(section.model_fields) if section else []
    elsewhere = [name for name, _ in leaves(root) if name.split(".")[-1] == key]
    if elsewhere and not did_you_mean(key, known):
        return f"; did you mean '{elsewhere[0]}'?"
    where = dotted(path[:-1]) or ("the configuration" if root is Config else "a study")
    return did_you_mean(key, known) or f"; {where} knows {', '.join(known)}"
