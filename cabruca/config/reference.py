"""Writes docs/configuration.md from the schema: `python -m cabruca.config.reference > docs/configuration.md`.

The line of a key is the comment behind its field in the schema, so there is one place to write it.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import sys
import tokenize
import types
import typing
from collections.abc import Iterator
from typing import Any

from cabruca.config.base import Section
from cabruca.config.keys import section_of
from cabruca.config.schema import Config

INTRO = """# Configuration

<!-- Written by `python -m cabruca.config.reference > docs/configuration.md`; a test checks that it is current. -->

A configuration is a YAML or JSON file. Every section and every key is optional; an unknown key is an error that
names the one you may have meant. `cabruca config validate FILE` checks a file alone, `cabruca config show FILE` prints
it with all defaults filled in.

- Numbers are those of YAML 1.2: `1e-7` is a number. Truth values are `true` and `false`; `yes` and `no` are text.
- A key that stands twice in one section is an error, not a silent choice.
- Strength, weakest first: the defaults below, the checkpoint (on `--resume`), the file, the flags, `--set` among them.
- `optimizer.lr` given as a flag (`--lr`, or `--set optimizer.lr=`) scales the rate of every parameter group, and
  `scheduler.max_lr`, by the same factor; rates given as flags themselves stay.
- Keys of several scheduler types may stand side by side; only those of `scheduler.type` are read.
- Secrets (keys that look like a token, password, secret or API key; passwords in URLs) are written as `***`.
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """The whole of docs/configuration.md."""
    parts = [INTRO, "## Top level\n", table(Config, "")]
    for name, field in Config.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            parts += [f"## {name}\n", table(section, f"{name}.")]
    return "\n".join(parts)


def table(section: type[Section], prefix: str) -> str:
    """A section's keys as a table in Markdown; sections inside it at the top level have tables of their own."""
    rows = [f"| `{key}` | {kind} | {default} | {text} |" for key, kind, default, text in _rows(section, prefix)]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _rows(section: type[Section], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    comments = field_comments(section)
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None and is_list(field.annotation):
            yield f"{prefix}{name}", f"list of {name.removeprefix('param_')}", "`[]`", _cell(comments[name])
            yield from _rows(inner, f"{prefix}{name}[].")
        elif inner is not None:
            if prefix:  # a section in a section; those of the top level have tables of their own
                yield from _rows(inner, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else f"`{_json(field.get_default(call_default_factory=True))}`"
            yield f"{prefix}{name}", _kind(field.annotation), default, _cell(comments[name])


def is_list(annotation: Any) -> bool:
    """Whether a key holds a list of sections (`param_groups`), not one section."""
    return typing.get_origin(annotation) is tuple


def field_comments(section: type[Section]) -> dict[str, str]:
    """Field -> the comment behind it in the source; the empty string where there is none."""
    source = inspect.getsource(sys.modules[section.__module__])
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    by_line = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    body = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == section.__name__).body
    fields = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    found: dict[str, str] = {}
    for node in fields:
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        text = next((by_line[line] for line in lines if line in by_line), "")
        found[typing.cast(ast.Name, node.target).id] = text
    return found


def _kind(annotation: Any) -> str:
    """The type in words."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(arg) for arg in args)
    if origin is typing.Literal:
        return ", ".join(f"`{arg}`" for arg in args)
    if origin is tuple:
        return f"list of {_kind(args[0])}" if args[-1] is Ellipsis else f"list of {len(args)} ({_kind(args[0])})"
    if origin is dict:
        return "mapping of text to text" if args[1] is str else "mapping"
    return {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}[annotation]


def _json(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("None", "null")


if __name__ == "__main__":
    main()
