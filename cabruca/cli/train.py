"""`cabruca train`: flags become dotted keys above the configuration file; the rest is `launch.train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from cabruca.cli.options import read_flags, set_option, worker_options

KEYS = {
    "device": "device",
    "experiment_name": "experiment_name",
    "lr": "optimizer.lr",
    "batch_size": "data.batch_size",
    "epochs": "training.num_epochs",
    "grad_accum": "training.gradient_accumulation_steps",
    "mixed_precision": "training.mixed_precision",
    "use_mlflow": "tracking.mlflow",
    "use_wandb": "tracking.wandb",
    "tensorboard": "tracking.tensorboard",
    "val_frequency": "validation.frequency",
    "save_frequency": "training.save_frequency",
    "output_dir": "output_dir",
    "seed": "training.seed",
    "profile": "training.profile",
    "compile": "training.compile",
    "workers": "distributed.num_workers",
    "address": "distributed.address",
    "dashboard": "distributed.dashboard",
}
"""Parameter of the command -> configuration key; a flag that is not given is None and sets nothing."""

POSITIVE, COUNT = click.IntRange(min=1), click.IntRange(min=0)
RATE = click.FloatRange(min=0, min_open=True)
DEVICES = click.Choice(["auto", "cpu", "cuda", "mps"])


@click.command(short_help="Train the network.")
@click.option("--config", "config_path", required=True, metavar="FILE", help="YAML or JSON configuration.")
@click.option("--device", type=DEVICES, default=None, help="Where to compute; auto: cuda, mps, cpu.")
@click.option("--resume", metavar="CKPT|auto", help="Go on from a checkpoint, or from the named run's newest.")
@click.option("--init-from", metavar="CKPT", help="Begin a new run with the weights of a checkpoint.")
@click.option("--experiment-name", metavar="NAME", help="Name of the run folder and of the tracker runs.")
@click.option("--lr", type=RATE, help="Learning rate; every parameter group is scaled by lr / optimizer.lr.")
@click.option("--batch-size", type=POSITIVE, help="Pictures in one forward pass.")
@click.option("--epochs", type=POSITIVE, help="Number of epochs.")
@click.option(
    "--grad-accum", type=POSITIVE, help="Forward passes an optimizer step; effective batch = both multiplied."
)
@click.option("--mixed-precision", is_flag=True, default=None, help="fp16 or bf16, as the device has it.")
@click.option("--use-mlflow", is_flag=True, default=None, help="Log to MLflow as well.")
@click.option("--use-wandb", is_flag=True, default=None, help="Log to Weights & Biases as well.")
@click.option("--no-tensorboard", "tensorboard", flag_value=False, type=bool, default=None, help="No tensorboard/.")
@click.option("--val-frequency", type=POSITIVE, help="Epochs between validations.")
@click.option("--save-frequency", type=COUNT, help="Epochs between numbered checkpoints; 0: none.")
@click.option("--output-dir", metavar="DIR", help="Where run folders are made.")
@click.option("--seed", type=COUNT, help="Seed of every random draw.")
@click.option("--profile", is_flag=True, default=None, help="Write what each operator costs into profile/.")
@click.option("--compile", is_flag=True, default=None, help="Time torch.compile beside plain steps, keep the faster.")
@worker_options
@set_option
@click.option("--dry-run", is_flag=True, help="Check the data, take two steps and one validation, say what they cost.")
@click.option("--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout, the result last.")
def train(
    *,
    config_path: str,
    resume: str | None,
    init_from: str | None,
    assignments: Sequence[str],
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Train the network on the data that a configuration names.

    Ctrl-C or SIGTERM finishes the step, saves, and says how to go on; the result is then bitwise what it would
    have been without the stop.
    """
    from cabruca.config.load import load_config
    from cabruca.launch import train as launch
    from cabruca.launch import unused_gpus

    explicit = read_flags(KEYS, flags, assignments)
    config = load_config(config_path, explicit)
    if not quiet and KEYS["workers"] not in explicit and (gpus := unused_gpus(config)):
        click.echo(f"{gpus} GPUs are here and this run uses one; all of them: {_with_workers(config_path)}", err=True)
    result = launch(
        config, resume=resume, init_from=init_from, dry_run=dry_run, quiet=quiet, json=as_json, explicit=explicit
    )
    return result.exit_code


def _with_workers(config_path: str) -> str:
    """The command as it was given, on all GPUs; called from elsewhere, the shortest such command."""
    from cabruca.commands import command

    given = sys.argv[1:] if "train" in sys.argv[1:2] else ["train", "--config", config_path]
    return command(*given, "--workers", "auto")
