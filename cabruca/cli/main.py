"""The command `cabruca`: its sub-commands, and the one place where errors become a line and an exit code.

====  ===================================================================================
code  meaning
====  ===================================================================================
0     done (also: the run was finished already)
1     the numbers are not finite any more, or `demo` fell under its floors
2     something to mend: a flag, a key, a file; one line on stderr
130   stopped by Ctrl-C, saved        143  stopped by SIGTERM, saved
====  ===================================================================================
"""

from __future__ import annotations

import errno
import sys
from typing import Any

import click

from cabruca._version import __version__
from cabruca.cli.lazy import LazyGroup
from cabruca.cli.looks import say_error
from cabruca.errors import CabrucaError, TrainingDiverged, did_you_mean

COMMANDS = {
    "train": ("cabruca.cli.train:train", "Train the network; stop and resume at any step."),
    "tune": ("cabruca.cli.tune:tune", "Search the best settings over many trials."),
    "evaluate": ("cabruca.cli.evaluate:evaluate", "Measure a checkpoint on a labelled data set."),
    "predict": ("cabruca.cli.predict:predict", "Map the crowns of an orthomosaic."),
    "report": ("cabruca.cli.report:report", "Report a map of crowns, a plot and a hectare."),
    "export": ("cabruca.cli.export:export", "Export the dense heads to ONNX or torch.export."),
    "checkpoints": ("cabruca.cli.checkpoints:checkpoints", "List, show, verify or prune a run's checkpoints."),
    "compare": ("cabruca.cli.compare:compare", "Compare the metrics and configurations of runs."),
    "monitor": ("cabruca.cli.monitor:monitor", "Follow runs, studies and maps in a browser."),
    "ui": ("cabruca.cli.ui:ui", "Open MLflow, TensorBoard or Optuna's dashboard."),
    "data": ("cabruca.cli.data:data", "Prepare, check or count a data set; draw a practice plot."),
    "config": ("cabruca.cli.config:config", "Show or validate a configuration file."),
    "doctor": ("cabruca.cli.doctor:doctor", "Look whether this machine can train, and how well."),
    "demo": ("cabruca.cli.demo:demo", "Draw, search, train and evaluate in minutes, without a network."),
}

_FILE_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}

_HELP_WANTED: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())  # a group called alone; from click 8.2


class Cabruca(LazyGroup):
    """The outermost group: turns every error a person can mend into one line."""

    def main(self, args: Any = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False  # click would print its errors in its own three-line way
        try:
            code = super().main(args, prog_name or "cabruca", *rest, **extra)
        except Exception as error:
            code = _report(error)
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self._lazy and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self._lazy) or f"; use one of {', '.join(self._lazy)}"
            raise click.UsageError(f"'{args[0]}' is not a command{hint}", ctx)
        return super().resolve_command(ctx, args)


def _report(error: Exception) -> int:
    """Print the line for people and return the exit code; what nobody can mend is raised again."""
    if isinstance(error, _HELP_WANTED):
        click.echo(error.format_message())
        return 0
    line = _line_of(error)
    if line is None:
        raise error
    from cabruca.tracking.secrets import hide  # an error may quote an address, with its password

    say_error(hide(" ".join(line.split())))
    return 130 if isinstance(error, click.Abort) else 1 if isinstance(error, TrainingDiverged) else 2


def _line_of(error: Exception) -> str | None:
    """What went wrong and what to do; None for what is a fault of cabruca itself."""
    line = None
    if isinstance(error, (CabrucaError, TrainingDiverged)):
        line = str(error)
    elif isinstance(error, click.ClickException):
        ctx = getattr(error, "ctx", None)
        line = error.format_message().rstrip(".") + (f"; see '{ctx.command_path} --help'" if ctx else "")
    elif isinstance(error, click.Abort):
        line = "interrupted; start it again, or go on with what was saved (--resume auto, cabruca tune resume)"
    elif isinstance(error, OSError) and error.errno in _FILE_TROUBLE:
        line = f"{error.filename or 'a file'}: {error.strerror}; free space, or mend the permissions"
    elif type(error).__name__ == "OutOfMemoryError":  # torch's; by name, because importing torch takes seconds
        remedy = "take a smaller --batch-size (with more --grad-accum) or data.tile_size"
        line = f"the device ran out of memory: {str(error).split('. ')[0]}; {remedy}"
    return line


@click.group(
    "cabruca", cls=Cabruca, lazy=COMMANDS, invoke_without_command=True, context_settings={"max_content_width": 100}
)
@click.version_option(__version__, prog_name="cabruca", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Train, evaluate and follow the network that maps cacao and shade trees in drone imagery."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
