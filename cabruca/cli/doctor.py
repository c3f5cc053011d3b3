"""`cabruca doctor`: can this machine train, and how well?"""

from __future__ import annotations

import click

from cabruca.cli.looks import WORDS, say
from cabruca.cli.tables import json_option, quiet_option, say_json


@click.command(short_help="Look whether this machine can train.")
@click.option("--config", "config_path", metavar="FILE", help="Ask for this configuration: device, folder, trackers.")
@quiet_option
@json_option
def doctor(config_path: str | None, quiet: bool, as_json: bool) -> int:
    """Versions, devices, operators, memory, disk, picture formats and trackers, one line each with a remedy.

    What may crash or hang is asked in a child process with a time limit. Exits with 2 where training cannot work, with
    0 otherwise, warnings or not. Takes about half a minute.
    """
    from cabruca.config.load import load_config
    from cabruca.doctor.diagnosis import diagnose

    report = diagnose(load_config(config_path))
    if as_json:
        say_json(report.to_dict())
    else:
        for line in report.lines:
            if not quiet or line.level != "ok":
                say(str(line), verdicts=WORDS)
        if quiet:
            return 0 if report.ok else 2
        click.echo(f"{report.count('error')} error(s), {report.count('warning')} warning(s)")
    return 0 if report.ok else 2
