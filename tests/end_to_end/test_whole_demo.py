"""Minutes each, run by `make test-slow`: the demo as it is, the memory of a step, the presets of a wheel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.timeout(1200)
def test_the_demo_as_it_is_passes_its_floors(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cabruca", "demo", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["segm_mAP_50"] > 0.7
    assert summary["seconds"] < 480, "eight minutes on two cores"
    (study,) = (tmp_path / "studies").iterdir()
    assert len((study / "leaderboard.csv").read_text().splitlines()) == 1 + 6
    assert (study / "best_config.yaml").is_file()
    for told in ("trials done", "report.html", "mlflow ui", "tensorboard --logdir", "monitor --outputs", "ui optuna"):
        assert told in done.stdout


@pytest.mark.timeout(600)
def test_a_step_with_500_crowns_takes_a_quarter_of_the_memory_of_dense_masks() -> None:
    script = REPO / "experiments" / "benchmarks" / "step_memory.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    ratio = re.search(r"ratio ([0-9.]+)", done.stdout)
    assert ratio is not None
    assert float(ratio[1]) <= 0.25


def test_a_wheel_brings_the_presets_where_the_demo_looks(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(REPO)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    names = zipfile.ZipFile(next(tmp_path.glob("cabruca-*.whl"))).namelist()
    assert sysconfig.get_path("data") == sys.prefix
    presets = {n.split(".data/data/")[1] for n in names if ".data/data/" in n}
    assert "share/cabruca/configs/training_config_light.yaml" in presets
    assert "cabruca/model/segmenter.py" in names
    assert not any(n.startswith(("tests/", "experiments/")) for n in names)
