"""ray-job.sh with a stand-in for Ray: what it hands over, of a train and of a tune, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
from two_nodes import ROOT

from cabruca.cli.main import main

PYTHON = """#!/usr/bin/env bash
# the program that writes the runtime environment is run, `ray job submit` is written down
if [ "$1" = - ]; then exec "$REAL_PYTHON" -; fi
printf '%s\\n' "$@" >"$TOLD"
echo "mode $RAY_AUTH_MODE at $RAY_API_SERVER_ADDRESS" >>"$TOLD"
"""


def handed_over(folder: Path, *words: str, **environment: str) -> tuple[int, str, list[str]]:
    """Exit code, what was said, and the words that Ray was given."""
    stand_in, told = folder / "python", folder / "told"
    stand_in.write_text(PYTHON)
    stand_in.chmod(stat.S_IRWXU)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "CABRUCA_"))}
    own |= {"PYTHON": str(stand_in), "REAL_PYTHON": sys.executable, "TOLD": str(told), **environment}
    done = subprocess.run(
        ["bash", str(ROOT / "cluster" / "ray-job.sh"), *words], env=own, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr, told.read_text().splitlines() if told.is_file() else []


@pytest.mark.parametrize("words", [["train", "--config", "farm.yaml", "--workers", "8"], ["tune", "--study", "s.yaml"]])
def test_a_train_and_a_tune_are_handed_over_whole(tmp_path: Path, words: list[str]) -> None:
    code, said, told = handed_over(
        tmp_path, *words, CABRUCA_OUTPUT_DIR="/shared/outputs", CABRUCA_STORAGE_PATH="s3://bucket/runs",
        CABRUCA_JOB_ID="mine", CABRUCA_JOB_ENV="MLFLOW_TRACKING_URI NOT_SET", MLFLOW_TRACKING_URI="http://10.0.0.1:5000",
    )  # fmt: skip
    assert code == 0, said
    assert "ray job logs --follow mine" in said
    assert "ray job stop mine" in said
    assert told[-1] == "mode token at http://127.0.0.1:8265"
    ray, command = told[: told.index("--")], told[told.index("--") + 1 : -1]
    assert ray[:4] == ["-m", "ray.scripts.scripts", "job", "submit"]
    assert ray[ray.index("--submission-id") + 1] == "mine"
    given = json.loads(ray[ray.index("--runtime-env-json") + 1])
    assert given["env_vars"] == {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_JOB_STOP_WAIT_TIME_S": "300", "MLFLOW_TRACKING_URI": "http://10.0.0.1:5000"
    }  # fmt: skip
    sets = ["--set", "output_dir=/shared/outputs", "--set", "distributed.storage_path=s3://bucket/runs"]
    assert command == ["python", "-m", "cabruca", *words, *sets]
    with click.Context(main) as context:
        inner = main.get_command(context, words[0])
        assert inner is not None
        parsed = inner.make_context(words[0], command[4:], parent=context)
    assert parsed.params["assignments"] == (sets[1], sets[3])


@pytest.mark.parametrize(
    ("words", "output_dir", "text"),
    [
        (["train", "--config", "farm.yaml"], "outputs", "CABRUCA_OUTPUT_DIR is 'outputs'; set it to an absolute"),
        (["train", "--config", "farm.yaml"], "", "CABRUCA_OUTPUT_DIR is ''; set it to an absolute"),
        (["evaluate", "--checkpoint", "c.pth"], "/shared", "cluster/ray-job.sh tune --study"),
        (["train"], "/shared", "cluster/ray-job.sh tune --study"),
    ],
)
def test_what_cannot_be_handed_over(tmp_path: Path, words: list[str], output_dir: str, text: str) -> None:
    code, said, told = handed_over(tmp_path, *words, CABRUCA_OUTPUT_DIR=output_dir)
    assert code == 2
    assert text in said
    assert told == []
