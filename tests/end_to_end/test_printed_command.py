"""What a stopped run prints is typed in a fresh shell, exactly as printed, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from drawn_farm import farm_config, write_farm

from cabruca.train import checkpoint


def _wait_for_a_row(run: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not ((run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").read_text().strip()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the run does not get on"
        time.sleep(0.05)


def test_the_command_printed_after_sigterm_goes_on(tmp_path: Path) -> None:
    folder = "out puts $HOME"  # for the shell's sake
    farm = write_farm(tmp_path / "farm", pictures=1)
    changes = {"model.pretrained": "none", "training.num_epochs": 1, "data.windows_per_epoch": 16}
    config = farm_config(farm, tmp_path / folder, {**changes, "training.log_interval": 1})
    (tmp_path / "farm.yaml").write_text(yaml.safe_dump(config.to_dict()))
    words = ["train", "--config", str(tmp_path / "farm.yaml"), "--experiment-name", "cut"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cabruca", *words],
        env={**os.environ, "PATH": "/usr/bin:/bin"},  # nothing activated here either, else the bare name is printed
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = tmp_path / folder / "cut"
    try:
        _wait_for_a_row(run, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143, said
    latest = run / "checkpoints" / "checkpoint_latest.pth"
    assert 0 < checkpoint.read(latest)["step"] < 8
    (line,) = [text for text in said.splitlines() if "go on with: " in text]
    # a fresh shell: nothing activated, another folder
    done = subprocess.run(
        ["/bin/sh", "-c", line.split("go on with: ")[1]],
        **{"env": {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "OMP_NUM_THREADS": "1"}, "cwd": "/"},  # type: ignore[call-overload]
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "is not used" not in done.stderr, "nobody asked for what stands in a run's own config.yaml"
    assert (checkpoint.read(latest)["step"], checkpoint.read(latest)["epoch"]) == (8, 1)
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
