"""Every command in the docs, and in the heads of the launch files, is understood by the command line as it stands."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from cabruca.cli.main import main
from cabruca.cli.options import Workers
from cabruca.config.load import load_config
from cabruca.distributed.team import LARGEST_BATCH, Team, check_batch

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "cluster" / "README.md", ROOT / "experiments" / "SCALE.md"]
PAGES += [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "predecessor.md"]
LAUNCH = [path for path in sorted((ROOT / "cluster").glob("*")) if path.suffix != ".md" and path.is_file()]
OF_OTHERS = {"--help", "--head", "--logdir", "--backend-store-uri", "--source", "--target", "--generate", "--tables"}
"""Flags of ray, tensorboard, mlflow and benchmarks, and click's own."""


def said_in(path: Path) -> Iterator[list[str]]:
    """The words of each command, after `cabruca` or a script: of shell blocks in pages, of comments in launch files."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    else:
        text = "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    for line in text.replace("\\\n", " ").splitlines():
        found = re.search(r"(?:^|[\s/])(?:cabruca|ray-job\.sh|slurm\.sbatch) ([a-z].*)", line.partition("  #")[0])
        if found is not None and "..." not in found[1] and (path.suffix == ".md" or " --" in found[1]):
            yield shlex.split(re.sub(r"\[(--[^\]]*)\]", r"\1", found[1]))


def understand(words: list[str]) -> None:
    """Raises what click raises of words that it does not know."""
    command: click.Command = main
    with click.Context(main) as context:
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            inner = command.get_command(context, words[0])
            assert inner is not None, f"{words[0]} is no command"
            command, words = inner, words[1:]
        command.make_context(command.name, list(words), parent=context).close()


def flags(command: click.Command) -> set[str]:
    own = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                own |= flags(inner)
    return own


@pytest.mark.parametrize("path", [*PAGES, *LAUNCH], ids=lambda path: path.name)
def test_every_command_is_understood(path: Path) -> None:
    for words in said_in(path):
        try:
            understand(words)
        except click.ClickException as error:
            pytest.fail(f"{path.name}: cabruca {shlex.join(words)}: {error.format_message()}")


def test_commands_are_found_and_a_wrong_one_is_not_understood() -> None:
    found = {path.name: len(list(said_in(path))) for path in [*PAGES, *LAUNCH]}
    assert found["command_line.md"] > 20
    assert {"ray-job.sh", "slurm.sbatch", "Dockerfile"} <= {name for name, number in found.items() if number}
    with pytest.raises(click.NoSuchOption):
        understand(["train", "--config", "a.yaml", "--nodes", "4"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_flag_is_one(path: Path) -> None:
    """In the prose, too."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = {flag for code in re.findall(r"`([^`]+)`", text) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)}
    assert named - OF_OTHERS - flags(main) == set()


def kubernetes_job() -> list[str]:
    spec = next(yaml.safe_load_all((ROOT / "cluster" / "kuberay-rayjob.yaml").read_text()))["spec"]
    program, *words = shlex.split(spec["entrypoint"])
    assert program == "cabruca"
    return words


def test_the_job_on_kubernetes_is_a_command() -> None:
    understand(kubernetes_job())


def test_the_workers_of_the_job_on_kubernetes_divide_its_batch() -> None:
    words = kubernetes_job()
    given = dict(zip(words[1::2], words[2::2], strict=True))
    preset = ROOT / given["--config"].removeprefix("/cabruca/")
    config = load_config(preset, {"data.batch_size": int(given["--batch-size"])})
    least, most = Workers().convert(given["--workers"], None, None)
    check_batch(config, Team(least, most, {}, True))


@pytest.mark.parametrize("path", [*PAGES, *LAUNCH, ROOT / "cabruca" / "cli" / "options.py"], ids=lambda path: path.name)
def test_workers_that_vary_are_of_a_batch_that_can_be(path: Path) -> None:
    """`--workers 2-8` would need a batch of 840: nobody should copy it."""
    for least, most in re.findall(r"(?:--workers |`)(\d+)-(\d+)\b", path.read_text(encoding="utf-8")):
        assert math.lcm(*range(int(least), int(most) + 1)) <= LARGEST_BATCH, f"{least}-{most}"
