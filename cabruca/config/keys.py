"""The schema seen as dotted keys: which there are, what stands beside one, which take free names."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import Any

from cabruca.config.schema import Config, Section


def section_of(annotation: Any) -> type[Section] | None:
    """The section class inside an annotation such as `DataConfig` or `tuple[ParamGroup, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for arg in typing.get_args(annotation) if (found := section_of(arg))), None)


def is_open(section: type[Section], key: str) -> bool:
    """True where the keys below `key` are free names (`data.category_map`)."""
    field = section.model_fields.get(key)
    return field is not None and typing.get_origin(field.annotation) is dict


def section_at(path: Sequence[str | int], root: type[Section] = Config) -> type[Section] | None:
    """The section that the dotted path leads to; numbers index into lists. None: the path leads elsewhere."""
    section: type[Section] | None = root
    for part in path:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part) if section else None
        section = section_of(field.annotation) if field else None
    return section


def leaves(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its default, in the schema's order (lists of sections count as one key)."""
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.get_default(call_default_factory=True)


def dotted(path: Sequence[str | int]) -> str:
    """`("optimizer", "param_groups", 0, "lr")` as `optimizer.param_groups[0].lr`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
