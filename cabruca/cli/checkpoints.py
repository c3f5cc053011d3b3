"""`cabruca checkpoints list|show|verify|prune`: what a run has kept, whether it is whole, and what may go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cabruca.cli.looks import WORDS, say
from cabruca.cli.tables import aligned, json_option, quiet_option, say_json, size

if TYPE_CHECKING:
    from cabruca.tracking.kept import Kept

F = TypeVar("F", bound=Callable[..., Any])


def run_argument(command: F) -> F:
    """`RUN`, and where names of runs are looked for."""
    where = click.option(
        "--output-dir", default="outputs", show_default=True, metavar="DIR", help="Where a run's name is looked for."
    )
    return click.argument("run", metavar="RUN")(where(command))


@click.group(short_help="List, show, verify or prune a run's checkpoints.")
def checkpoints() -> None:
    """Look after the checkpoints of a run. RUN is its folder, or its name below --output-dir."""


@checkpoints.command("list")
@run_argument
@json_option
def list_(run: str, output_dir: str, as_json: bool) -> None:
    """Epoch, step, monitored metric, size and condition of every checkpoint."""
    from cabruca.tracking.kept import kept_by
    from cabruca.tracking.runs import find_run

    found = kept_by(find_run(run, output_dir))
    if as_json:
        say_json({"checkpoints": [one.to_dict() for one in found]})
    else:
        say(_table(found), head=True, verdicts=WORDS)


@checkpoints.command()
@run_argument
@click.option("--checkpoint", "name", metavar="NAME", help="best, latest, epoch_10 ...; default: best, else latest.")
@json_option
def show(run: str, output_dir: str, name: str | None, as_json: bool) -> None:
    """What is inside: settings that are not the defaults, classes, input, versions, parts of the network."""
    from pathlib import Path

    from cabruca.tracking.inside import describe
    from cabruca.tracking.kept import choose
    from cabruca.tracking.runs import find_run

    direct = Path(run) if run.endswith(".pth") and name is None else None
    facts = describe(direct or choose(find_run(run, output_dir), name))
    if as_json:
        say_json(facts)
    else:
        click.echo("\n".join(_inside(facts)))


@checkpoints.command()
@run_argument
@quiet_option
@json_option
def verify(run: str, output_dir: str, quiet: bool, as_json: bool) -> None:
    """Read every checkpoint and compare its sha256 with its sidecar's; exits with 2 where one is damaged.

    One without a sidecar is loaded instead: it is "whole, not vouched for", or damaged.
    """
    from cabruca.errors import CheckpointError
    from cabruca.tracking.kept import kept_by, verified
    from cabruca.tracking.runs import find_run

    found = verified(kept_by(find_run(run, output_dir)))
    if as_json:
        say_json({"checkpoints": [one.to_dict() for one in found]})
    elif not quiet:
        say(_table(found), head=True, verdicts=WORDS)
    bad = [one.path.name for one in found if one.condition in ("damaged", "missing")]
    if bad:
        whole = next((one.path.name for one in found if one.condition == "intact"), None)
        remedy = f"go on from {whole}" if whole else "train anew, or take them from a backup"
        raise CheckpointError(f"{len(bad)} of {len(found)} checkpoints are not whole ({', '.join(bad)}); {remedy}")


@checkpoints.command()
@run_argument
@click.option("--keep", type=click.IntRange(min=0), required=True, metavar="N", help="Numbered checkpoints to keep.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@quiet_option
@json_option
def prune(*, run: str, output_dir: str, keep: int, dry_run: bool, quiet: bool, as_json: bool) -> None:
    """Remove numbered checkpoints but the newest N; best and latest always stay."""
    from cabruca.tracking.kept import prune as prune_run
    from cabruca.tracking.runs import find_run

    done = prune_run(find_run(run, output_dir), keep, dry_run=dry_run)
    removed, kept = [path.name for path in done.removed], [path.name for path in done.kept]
    if as_json:
        say_json({"removed": removed, "kept": kept, "freed_bytes": done.freed_bytes, "dry_run": dry_run})
        return
    if quiet:
        return
    verb, freed = ("would be removed", "would be freed") if dry_run else ("removed", "freed")
    for name in removed:
        click.echo(f"{verb}: {name}")
    click.echo(f"{len(removed)} {verb}, {len(kept)} kept, {size(done.freed_bytes)} {freed}")


def _table(found: list[Kept]) -> str:
    head = ["checkpoint", "epoch", "step", "metric", "size", "condition"]
    rows = [[one.path.name, one.epoch, one.step, one.metric, size(one.bytes), one.condition] for one in found]
    return aligned([head, *rows], right=(1, 2, 3, 4))


def _inside(facts: Mapping[str, Any]) -> list[str]:
    best = facts["best"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    heads = [["part", "tensors", "parameters"]]
    parts = [[name, part["tensors"], part["parameters"]] for name, part in facts["parts"].items()]
    total = ["all", *(sum(row[i] for row in parts) for i in (1, 2))]
    return [
        f"{facts['path']}: epoch {facts['epoch']}, step {facts['step']}, stage {facts['stage']}",
        f"best: {'-' if best['value'] is None else format(best['value'], '.4f')} after epoch {best['epoch'] or '-'}",
        f"made with: {versions}, {facts['threads']} compute threads",
        *(f"{kind} classes: {', '.join(names)}" for kind, names in facts["classes"].items() if names),
        "input:",
        aligned(list(facts["input"].items()), indent="  "),
        "settings that are not the defaults:",
        aligned(list(facts["settings"].items()), indent="  "),
        aligned([*heads, *parts, total], right=(1, 2)),
    ]
