"""YAML as people mean it: the scalars of YAML 1.2's core schema, one value a key, plain data only.

PyYAML follows YAML 1.1, where `1e-7` is text, `no` is false, `010` is eight and the second of two equal keys
wins in silence. Here `1e-7` is a number, only true and false are truth values, and a key said twice is an error.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from cabruca.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_CORE = (  # (tag, pattern, first characters), YAML 1.2.2 section 10.3.2; the first match wins
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)


class StrictLoader(yaml.SafeLoader):
    """SafeLoader with core-schema scalars, unique keys, and keys that are always text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own shape)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As in PyYAML, but a repeated key is an error.

        Done here and not when values are built: merging `<<` adds keys later, which may repeat rightly.
        """
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.composer.ComposerError(None, None, "a key is a list or a mapping", key.start_mark)
            if key.tag == _TAG + "merge":
                continue
            if key.value in lines:
                problem = f"key '{key.value}' is there twice (first in line {lines[key.value]})"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
            key.tag = _TAG + "str"
        return node


class OwnLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same scalars read by libyaml, nine times as fast; it does not look for a key that is said twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own shape)


class StrictDumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else."""


for _name, _pattern, _first in _CORE:
    StrictLoader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)
    OwnLoader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)
    # beside YAML 1.1's: what the dumper thus takes for a number or a truth value in either version, it quotes
    StrictDumper.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)


def _whole_number(loader: Any, node: yaml.ScalarNode) -> int:
    text = node.value
    return int(text, 16 if text[:2] == "0x" else 8) if text[:2] in ("0x", "0o") else int(text)


def _number(loader: Any, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


for _loader in (StrictLoader, OwnLoader):
    _loader.add_constructor(_TAG + "int", _whole_number)
    _loader.add_constructor(_TAG + "float", _number)


def parse_yaml(text: str, source: str) -> Any:
    """The single document in `text`, as plain containers.

    Raises:
        ConfigError: not YAML, a repeated key, or a tag that is not plain data; names `source` and the line.
    """
    try:
        loader = StrictLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        what = error.problem or error.context or "not YAML"
        raise ConfigError(f"{source}{where}: {what}; mend the YAML there (indentation, quotes, colons)") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {error}; save the file as plain UTF-8 text") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deep for a configuration; flatten it") from None
    except ValueError as error:
        raise ConfigError(f"{source}: {error}; write plain numbers and text") from None


def parse_own(text: str) -> Any:
    """As `parse_yaml`, quickly, of a text that `dump_yaml` has written (so no key is there twice).

    Raises:
        ValueError: it is no YAML after all.
    """
    loader = OwnLoader(text)
    try:
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML: {error}") from None
    finally:
        loader.dispose()


def parse_json(text: str, source: str) -> Any:
    """The JSON value in `text`; keys must be unique.

    Raises:
        ConfigError: not JSON, or a repeated key; names `source` and, for bad JSON, the line.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"{source}: key '{key}' is there twice; keep one of them")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}, line {error.lineno}: {error.msg}; mend the JSON there") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deep for a configuration; flatten it") from None


def dump_yaml(values: Any) -> str:
    """YAML text that `parse_yaml`, and any YAML 1.1 reader, reads back as `values`; keys keep their order."""
    text: str = yaml.dump(values, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=1000)
    return text
