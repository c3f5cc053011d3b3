"""`cabruca config show|validate`: the file alone; no data, device or checkpoint need exist."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cabruca.cli.looks import WORDS, say
from cabruca.cli.options import read_assignments, set_option
from cabruca.cli.tables import json_option, quiet_option, say_json


@click.group(short_help="Show or validate a configuration.")
def config() -> None:
    """Look at a configuration file without training."""


@config.command()
@click.argument("file", metavar="FILE")
@set_option
@json_option
def show(file: str, assignments: Sequence[str], as_json: bool) -> None:
    """Print the resolved configuration as YAML (or JSON), defaults filled in, secrets hidden."""
    from cabruca.config.load import load_config, notices, redact, to_yaml

    resolved = load_config(file, read_assignments(assignments))
    for line in notices(resolved):
        click.echo(line, err=True)
    values = redact(resolved.to_dict())
    say_json(values) if as_json else click.echo(to_yaml(values), nl=False)


@config.command()
@click.argument("file", metavar="FILE")
@set_option
@quiet_option
@json_option
def validate(file: str, assignments: Sequence[str], quiet: bool, as_json: bool) -> None:
    """Check names, types and values in a configuration file."""
    from cabruca.config.load import load_config, notices

    told = notices(load_config(file, read_assignments(assignments)))
    if as_json:
        say_json({"file": file, "valid": True, "notices": told})
    elif not quiet:
        say("\n".join([*told, f"{file}: valid"]), verdicts=WORDS)
