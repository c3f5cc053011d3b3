"""Options that several commands share, and how `--set` and `--map` are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def set_option(command: F) -> F:
    """`--set a.b.c=value`, repeated; reaches the command as `assignments`."""
    text = "Set any configuration key, e.g. --set data.tile_size=256 (repeat for more)."
    return click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help=text)(command)


class Workers(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """`4`, `auto`, or `1-2` for as many as there is room for; becomes a number, the word, or [1, 2]."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        least, dash, most = str(value).partition("-")
        if value == "auto":
            return value
        if not least.isdigit() or int(least) < 1 or (dash and not (most.isdigit() and int(most) >= int(least))):
            self.fail(f"'{value}' is not a number of workers; write 4, auto, or 1-2 for as many as fit", param, ctx)
        return [int(least), int(most)] if dash else int(least)


def worker_options(command: F) -> F:
    """`--workers`, `--address`, `--no-dashboard`; they reach the command as `workers`, `address`, `dashboard`."""
    for option in (
        click.option(
            "--workers", type=Workers(), metavar="N|auto", help="Processes that share the work; 1-2: elastic."
        ),
        click.option("--address", metavar="ADDR", help="Ray cluster: auto, host:port or ray://host:port."),
        click.option(
            "--no-dashboard", "dashboard", flag_value=False, type=bool, default=None, help="No Ray dashboard."
        ),
    )[::-1]:
        command = option(command)
    return command


def read_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Dotted key -> value of every `--set`.

    Raises:
        click.UsageError: no `=`, or a key that is set twice. ConfigError: the value is not YAML.
    """
    from cabruca.config.load import parse_value

    pairs = [_split(text, "--set", "KEY=VALUE, such as data.tile_size=256") for text in assignments]
    return {key: parse_value(value) for key, value in _unique(pairs, "--set")}


def read_flags(keys: Mapping[str, str], flags: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Dotted key -> value of everything given on the command line.

    Args:
        keys: parameter of the command -> dotted key; a flag that is not given is None and sets nothing.

    Raises:
        click.UsageError: a key is given by its flag and by `--set`.
    """
    explicit = {keys[name]: value for name, value in flags.items() if value is not None}
    more = read_assignments(assignments)
    for key in explicit.keys() & more.keys():
        flag = next(name for name in keys if keys[name] == key).replace("_", "-")
        context = click.get_current_context(silent=True)
        raise click.UsageError(f"'{key}' is given by --{flag} and by --set; give it once", context)
    return {**explicit, **more}


def read_map(entries: Iterable[str]) -> dict[str, str]:
    """Dataset category -> class of every `--map`; the last `=` divides, so that a category may hold one.

    Raises:
        click.UsageError: no `=`, or a category that is mapped twice.
    """
    pairs = [_split(text, "--map", "CATEGORY=CLASS, such as palm=shade_tree", last=True) for text in entries]
    return dict(_unique(pairs, "--map"))


def _split(text: str, flag: str, form: str, *, last: bool = False) -> tuple[str, str]:
    key, equals, value = text.rpartition("=") if last else text.partition("=")
    if not equals or not key.strip() or (last and not value.strip()):
        raise click.UsageError(f"{flag} '{text}' is not {form}; write it so", click.get_current_context(silent=True))
    return key.strip(), value.strip()


def _unique(pairs: list[tuple[str, str]], flag: str) -> list[tuple[str, str]]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            context = click.get_current_context(silent=True)
            raise click.UsageError(f"{flag} gives '{key}' {keys.count(key)} times; give it once", context)
    return pairs


class Score(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number within 0..1, or `auto`."""

    name = "score"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto" or isinstance(value, float):
            return value
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            self.fail(f"'{value}' is not a score; write auto, or a number from 0 to 1", param, ctx)
        return number
