"""`cabruca tune`: studies begun, gone on with, looked at. Looking needs neither Ray nor Optuna."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cabruca.cli.looks import coloured
from cabruca.cli.options import read_flags, set_option
from cabruca.cli.tables import json_option, say_json

if TYPE_CHECKING:
    from cabruca.study_looks import Look

F = TypeVar("F", bound=Callable[..., Any])

KEYS = {
    "trials": "study.num_trials",
    "max_concurrent": "study.max_concurrent_trials",
    "time_budget": "study.time_budget",
    "address": "distributed.address",
    "dashboard": "distributed.dashboard",
    "use_mlflow": "tracking.mlflow",
    "use_wandb": "tracking.wandb",
}
"""Parameter of the commands -> dotted key; a flag that is not given is None and sets nothing."""

POSITIVE = click.IntRange(min=1)


def running_options(command: F) -> F:
    """What every command that runs trials takes."""
    for option in (
        click.option("--address", metavar="ADDR", help="Ray cluster: auto, host:port or ray://host:port."),
        click.option("--max-concurrent", type=POSITIVE, metavar="N", help="Trials at a time."),
        click.option("--time-budget", metavar="TIME", help="Then trials save and stop: 2h, 90m, 1h30m, or seconds."),
        click.option("--use-mlflow", is_flag=True, default=None, help="Log to MLflow: one run a study, one a trial."),
        click.option("--use-wandb", is_flag=True, default=None, help="Log to Weights & Biases: one group a study."),
        click.option(
            "--no-dashboard", "dashboard", flag_value=False, type=bool, default=None, help="No Ray dashboard."
        ),
        set_option,
        click.option("--quiet", is_flag=True, help="Only warnings and errors."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout, the result last."),
    )[::-1]:
        command = option(command)
    return command


def name_argument(command: F) -> F:
    """`NAME`, and where studies are looked for."""
    text = "Where the study's name is looked for: DIR/studies/NAME."
    where = click.option("--output-dir", default="outputs", show_default=True, metavar="DIR", help=text)
    return click.argument("name", metavar="NAME")(where(command))


@click.group(
    short_help="Search the best settings over many trials.",
    invoke_without_command=True,
    subcommand_metavar="[resume|status|show|extend|best|repeat NAME]",
)
@click.option("--study", "path", metavar="FILE", help="The study's YAML or JSON file.")
@click.option("--trials", type=POSITIVE, metavar="N", help="Trials in all, instead of num_trials.")
@click.option("--resume", is_flag=True, help="Go on with the study where it has been begun.")
@click.option("--retry-failed", is_flag=True, help="Go on, and run failed trials again.")
@running_options
@click.pass_context
def tune(
    ctx: click.Context,
    /,
    *,
    path: str | None,
    resume: bool,
    retry_failed: bool,
    quiet: bool,
    as_json: bool,
    assignments: Sequence[str],
    **flags: Any,
) -> int | None:
    """Search the best settings over many trials: `cabruca tune --study FILE`.

    NAME is a study's name below --output-dir, or its folder. Ctrl-C or SIGTERM lets every trial save; whatever is
    killed, `tune resume NAME` goes on, and nothing is done twice.
    """
    set_flags = any(value is not None for value in flags.values())
    given = resume or retry_failed or quiet or as_json or bool(assignments) or set_flags
    if ctx.invoked_subcommand is not None:
        if path is not None or given:
            raise click.UsageError(f"options of tune stand behind '{ctx.invoked_subcommand}', not before it", ctx)
        return None
    if path is None:
        if given:
            raise click.UsageError("Missing option '--study'; or name a study: cabruca tune resume NAME", ctx)
        click.echo(ctx.get_help())
        return 0
    from cabruca.tuning import begin

    overrides = read_flags(KEYS, flags, assignments)
    result = begin(path, overrides, resume=resume, retry_failed=retry_failed, quiet=quiet, json=as_json)
    return result.exit_code


@tune.command()
@name_argument
@click.option("--retry-failed", is_flag=True, help="Run failed trials again, too.")
@running_options
def resume(
    *,
    name: str,
    output_dir: str,
    retry_failed: bool,
    quiet: bool,
    as_json: bool,
    assignments: Sequence[str],
    **flags: Any,
) -> int:
    """Go on with a study: finished trials stay, unfinished ones go on from their checkpoints."""
    from cabruca.tuning import go_on

    overrides = read_flags(KEYS, flags, assignments)
    return go_on(name, output_dir, overrides, retry_failed=retry_failed, quiet=quiet, json=as_json).exit_code


@tune.command()
@name_argument
@click.option("--trials", required=True, metavar="+N", help="+20: 20 more trials; 60: 60 in all.")
@click.option("--study", "path", metavar="FILE", help="The study's file with a wider search space.")
@running_options
def extend(
    *,
    name: str,
    output_dir: str,
    trials: str,
    path: str | None,
    quiet: bool,
    as_json: bool,
    assignments: Sequence[str],
    **flags: Any,
) -> int:
    """Give a study more trials, also one that has finished, and a wider search space where a file has one."""
    from cabruca.tuning import extend as lengthen

    overrides = read_flags(KEYS, flags, assignments)
    done = lengthen(name, output_dir, overrides, trials=trials, study_file=path, quiet=quiet, json=as_json)
    return done.exit_code


@tune.command()
@name_argument
@click.option(
    "--top", type=POSITIVE, metavar="K", help="Best trials to repeat; default: the study's repeat_best, or 2."
)
@click.option("--seeds", type=POSITIVE, metavar="N", help="Seeds for each; default: the study's repeat_best, or 3.")
@running_options
def repeat(
    *,
    name: str,
    output_dir: str,
    top: int | None,
    seeds: int | None,
    quiet: bool,
    as_json: bool,
    assignments: Sequence[str],
    **flags: Any,
) -> int:
    """Train the best trials again over several seeds: mean and deviation. Winners of short runs are often luck."""
    from cabruca.tuning import repeat as run_again

    overrides = read_flags(KEYS, flags, assignments)
    return run_again(name, output_dir, overrides, top=top, seeds=seeds, quiet=quiet, json=as_json).exit_code


@tune.command()
@name_argument
@json_option
def status(name: str, output_dir: str, as_json: bool) -> None:
    """The leaderboard as it stands, and whether the study is at work; may be called while it is."""
    from cabruca.study_looks import status_of

    width = max(80, min(shutil.get_terminal_size((80, 24)).columns, 120)) if coloured() else 80
    _say(status_of(name, output_dir, width=width, color=coloured()), as_json=as_json)


@tune.command()
@name_argument
@click.option("--trial", type=click.IntRange(min=0), metavar="N", help="Which; default: the best.")
@json_option
def show(name: str, output_dir: str, trial: int | None, as_json: bool) -> None:
    """One trial: its parameters, its curve, how it ended and, where it failed, its autopsy."""
    from cabruca.study_looks import show_trial

    _say(show_trial(name, output_dir, trial), as_json=as_json)


@tune.command()
@name_argument
@json_option
def best(name: str, output_dir: str, as_json: bool) -> None:
    """The best trial (with several metrics the Pareto front), its configuration, and the command that trains it."""
    from cabruca.study_looks import best_of_study

    _say(best_of_study(name, output_dir), as_json=as_json)


def _say(look: Look, *, as_json: bool) -> None:
    say_json(look.facts) if as_json else click.echo("\n".join(look.lines), color=coloured())
