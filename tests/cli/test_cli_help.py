"""`--help` is quick, because nothing heavy is imported for it; the flags are those that are promised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cabruca._version import __version__
from cabruca.cli.main import COMMANDS, main

DOCS = Path(__file__).resolve().parents[2] / "docs" / "command_line.md"
HEAVY = ("torch", "torchvision", "timm", "pydantic", "rasterio", "rich", "mlflow", "wandb", "numpy", "yaml", "PIL")
TRAIN = (
    *("--config", "--device", "--resume", "--init-from", "--experiment-name", "--lr", "--batch-size", "--epochs"),
    *("--grad-accum", "--mixed-precision", "--use-mlflow", "--use-wandb", "--no-tensorboard", "--val-frequency"),
    *("--save-frequency", "--output-dir", "--seed", "--profile", "--compile", "--set", "--dry-run"),
    *("--workers", "--address", "--no-dashboard"),
    *("--quiet", "--json"),
)
EVALUATE = ["--checkpoint", "--images", "--annotations", "--json", "--map", "--inventory"]
EVALUATE += ["--workers", "--address", "--no-dashboard", "--pictures", "--num-pictures", "--quiet"]
EVALUATE += ["--score", "--tune-thresholds"]


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], [], *([name, "--help"] for name in COMMANDS), ["config", "show", "--help"]],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    code = f"""
import sys
from cabruca.cli.main import main
try:
    main({args!r})
except SystemExit as done:
    assert done.code == 0, done.code
print("HEAVY:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY: []"
    assert len(done.stdout.splitlines()) > 1


def options(name: str) -> set[str]:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


def test_flags_are_the_promised_ones() -> None:
    assert options("train") == set(TRAIN)
    assert options("evaluate") == set(EVALUATE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_help_and_is_documented(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    text = DOCS.read_text(encoding="utf-8")
    assert f"cabruca {name}" in text
    inner = command.commands.values() if isinstance(command, click.Group) else [command]
    for one in inner:
        assert one is not None
        for parameter in one.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"
                assert parameter.opts[0] in text, f"{name} {parameter.opts} in docs/command_line.md"


LOOKS = {"compare", "monitor", "ui", "list", "show", "status", "best"}
"""Commands whose output is their purpose."""


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - LOOKS))
def test_what_does_something_can_do_it_quietly(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    inner = command.commands if isinstance(command, click.Group) else {name: command}
    for own, one in inner.items():
        if own not in LOOKS:
            assert one is not None
            assert "--quiet" in {o for p in one.params for o in p.opts}, f"{name} {own}"


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"cabruca {__version__}\n"
    done = subprocess.run([sys.executable, "-m", "cabruca", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"cabruca {__version__}\n"


@pytest.mark.parametrize("args", [[], ["config"], ["data"]])
def test_a_group_called_alone_shows_its_help(args: list[str]) -> None:
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: cabruca")
