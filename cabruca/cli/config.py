"""`cabruca config show|validate`: the file alone; no data, device or checkpoint need exist."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cabruca.cli.options import read_assignments, set_option


@click.group(short_help="Show or validate a configuration.")
def config() -> None:
    """Look at a configuration file without training."""


@config.command()
@click.argument("file", metavar="FILE")
@set_option
def show(file: str, assignments: Sequence[str]) -> None:
    """Print the resolved configuration as YAML, defaults filled in, secrets hidden."""
    from cabruca.config.load import load_config, notices, redact, to_yaml

    resolved = load_config(file, read_assignments(assignments))
    for line in notices(resolved):
        click.echo(line, err=True)
    click.echo(to_yaml(redact(resolved.to_dict())), nl=False)


@config.command()
@click.argument("file", metavar="FILE")
@set_option
def validate(file: str, assignments: Sequence[str]) -> None:
    """Check names, types and values in a configuration file."""
    from cabruca.config.load import load_config, notices

    for line in notices(load_config(file, read_assignments(assignments))):
        click.echo(line)
    click.echo(f"{file}: valid")
