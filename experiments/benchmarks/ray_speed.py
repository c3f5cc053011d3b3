"""What Ray costs and brings: images a second in-process, on 1 worker and on 2 workers, and seconds to the first step.

Every row is the command `cabruca train` on the same pictures (a drawn plot, or a folder with train.json and val.json),
1 compute thread a process; what differs is where it runs. The arms alternate (A B C A B C), so that a slow minute of
the machine hits all. Images a second are the median over the epochs but the first, validation left out. The first step
is seen when its row appears in metrics.jsonl.

The last arm is what the machine gives at most: two runs of half the batch that know nothing of each other, their images
a second added up.

    python experiments/benchmarks/ray_speed.py [--rounds 2] [--windows 24] [--epochs 4] [--tile 256] [--batch 4]
        [--accumulation 1] [--preset configs/training_config_light.yaml] [--data DIR --map CATEGORY=CLASS]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from recipes import data_keys  # noqa: E402 - beside this file

ARMS = {
    "in-process": [],
    "Ray, 1 worker": ["--address", "local", "--workers", "1"],
    "Ray, 2 workers": ["--address", "local", "--workers", "2"],
    "2 in-process side by side": [],
}
TWIN = "2 in-process side by side"
FLOORS = {
    "Ray, 1 worker": ("in-process", 0.97),
    "Ray, 2 workers": ("Ray, 1 worker", 1.8),
    TWIN: ("in-process", 0.0),
}


@dataclass(frozen=True)
class Measured:
    """Of one command: images a second, and seconds from the command to the end of its first optimizer step."""

    images_per_s: float
    first_step_s: float


def measure(flags: list[str], arguments: argparse.Namespace, plot: dict[str, Any]) -> Measured:
    """Run one command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            **plot,
            "data.windows_per_epoch": arguments.windows,
            "data.tile_size": arguments.tile,
            "data.overlap": arguments.tile // 8,
            "data.num_workers": 0,
            "data.batch_size": arguments.batch,
            "training.gradient_accumulation_steps": arguments.accumulation,
            "training.log_interval": 1,
            "training.num_epochs": arguments.epochs,
            "training.early_stopping_patience": 0,
            "validation.frequency": arguments.epochs,
            "tracking.tensorboard": False,
            "tracking.system_metrics_s": 0,
            "model.pretrained": "none",
            "distributed.resources_per_worker": {"CPU": 1},
            "experiment_name": "run",
            "output_dir": folder,
            "device": "cpu",
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        command = [sys.executable, "-m", "cabruca", "train", "--config", str(arguments.preset), "--quiet"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        rows = Path(folder) / "run" / "metrics.jsonl"
        began = time.monotonic()
        process = subprocess.Popen([*command, *flags, *words], env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (rows.is_file() and rows.stat().st_size):
            time.sleep(0.02)
        first = time.monotonic() - began
        if process.wait() != 0:
            raise SystemExit(f"a command failed: {' '.join(command)}")
        found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    speeds = [row["time/images_per_s"] for row in found if "time/epoch_s" in row][1:]
    return Measured(statistics.median(speeds), first)


def side_by_side(arguments: argparse.Namespace, plot: dict[str, Any]) -> Measured:
    """Two commands at once, each with half the batch and half the windows."""
    half = argparse.Namespace(**{**vars(arguments), "batch": arguments.batch // 2, "windows": arguments.windows // 2})
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: measure([], half, plot), range(2)))
    return Measured(sum(m.images_per_s for m in both), max(m.first_step_s for m in both))


def table(measured: dict[str, list[Measured]]) -> str:
    """Medians over the rounds, and the ratios with what they should at least be."""
    lines = ["| where | images/s | ratio | at least | first step after |", "|---|---|---|---|---|"]
    speed = {arm: statistics.median(m.images_per_s for m in rounds) for arm, rounds in measured.items()}
    for arm, rounds in measured.items():
        first = statistics.median(m.first_step_s for m in rounds)
        against, floor = FLOORS.get(arm, (arm, 1.0))
        ratio = f"{speed[arm] / speed[against]:.2f} x {against}" if arm in FLOORS else ""
        least = f"{floor:g}" if arm in FLOORS and floor else ""
        lines.append(f"| {arm} | {speed[arm]:.2f} | {ratio} | {least} | {first:.1f} s |")
    return "\n".join(lines)


def drawn(folder: Path) -> dict[str, Any]:
    """Configuration keys of a practice plot."""
    from cabruca.data.synthetic import draw_plot

    plot = draw_plot(folder, size_px=1024, gsd_m=0.1, seed=0)
    return {
        "data.train_dir": str(plot.images_dir),
        "data.val_dir": str(plot.images_dir),
        "data.train_annotations": str(plot.train_annotations),
        "data.val_annotations": str(plot.val_annotations),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = {"rounds": 2, "windows": 24, "epochs": 4, "tile": 256, "batch": 4, "accumulation": 1}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--preset", type=Path, default=ROOT / "configs" / "training_config_light.yaml")
    parser.add_argument("--data", type=Path, help="folder with train.json and val.json; default: a drawn plot")
    parser.add_argument("--map", default="", metavar="CATEGORY=CLASS")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        data = data_keys(arguments.data.resolve(), arguments.map) if arguments.data else drawn(Path(folder))
        measured: dict[str, list[Measured]] = {arm: [] for arm in ARMS}
        for _ in range(arguments.rounds):
            for arm, flags in ARMS.items():
                one = side_by_side(arguments, data) if arm == TWIN else measure(flags, arguments, data)
                measured[arm].append(one)
                print(f"  {arm}: {measured[arm][-1]}", flush=True)
    print(table(measured))


if __name__ == "__main__":
    main()
