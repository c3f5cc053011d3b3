"""What the progressive, the transfer and the unfreezing recipe gain or lose beside plain training, on one data set.

Every recipe has the same number of epochs, over the same number of pixels; what differs is one thing at a time:

- `plain`: the light preset, ImageNet backbone, all parts learn from the first step.
- `progressive`: `training.stages`, the first half of the epochs on windows of half the side.
- `transfer`: `model.pretrained_checkpoint`, a network trained on the source data (boxes or masks of other crowns).
- `unfreeze`: as `transfer`, the feature extractor frozen for the first quarter of the epochs.

    python experiments/benchmarks/recipes.py --data DIR --map tree=shade_tree \
        --source DIR --source-map oil_palm=shade_tree --epochs 16 --seeds 3

DATA and source are folders with train.json and val.json. Numbers are those of the last epoch; `seconds` are training
seconds. Prints a line a run, then mean and range over the seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

PRESET = Path(__file__).resolve().parents[2] / "configs" / "training_config_light.yaml"
SHOWN = ("segm_mAP_50", "segm_mAP", "bbox_mAP_50", "total_count_accuracy", "mIoU")


def data_keys(folder: Path, mapping: str) -> dict[str, Any]:
    """Configuration keys of a folder with train.json and val.json."""
    category, name = mapping.split("=")
    return {
        "data.train_dir": str(folder),
        "data.val_dir": str(folder),
        "data.train_annotations": str(folder / "train.json"),
        "data.val_annotations": str(folder / "val.json"),
        "data.category_map": {category: name},
    }


def train(out: Path, name: str, keys: dict[str, Any], *, epochs: int | None, seed: int) -> list[dict[str, Any]]:
    """Train in a process of its own; the rows of its epochs."""
    command = [sys.executable, "-m", "cabruca", "train", "--config", str(PRESET), "--output-dir", str(out), "--quiet"]
    command += ["--experiment-name", name, "--seed", str(seed), "--no-tensorboard", "--save-frequency", "0"]
    command += ["--epochs", str(epochs), "--val-frequency", str(epochs)] if epochs else []
    sets = {"training.early_stopping_patience": 0, "validation.save_predictions": False, **keys}
    command += [word for key, value in sets.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr.strip()}")
    rows = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "time/train_s" in row]


def recipes(epochs: int, tile: int, source: Path) -> dict[str, dict[str, Any]]:
    """Recipe -> the keys that make it; a recipe with stages brings its own number of epochs."""
    half = epochs // 2
    stages = [{"tile_size": tile // 2, "epochs": half}, {"tile_size": tile, "epochs": epochs - half}]
    unfreeze = [{"epoch": max(1, epochs // 4), "part": "backbone.body*"}]  # the pyramid begins at random and must learn
    return {
        "plain": {},
        "progressive": {"training.stages": stages, "validation.frequency": epochs},
        "transfer": {"model.pretrained_checkpoint": str(source)},
        "unfreeze": {"model.pretrained_checkpoint": str(source), "training.unfreeze": unfreeze},
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--map", required=True, metavar="CATEGORY=CLASS")
    arguments.add_argument("--source", type=Path, required=True)
    arguments.add_argument("--source-map", required=True, metavar="CATEGORY=CLASS")
    arguments.add_argument("--source-epochs", type=int, default=15)
    arguments.add_argument("--source-windows", type=int, help="windows an epoch of the source; default: auto")
    arguments.add_argument("--epochs", type=int, default=16)
    arguments.add_argument("--tile", type=int, default=256)
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        source = data_keys(given.source.resolve(), given.source_map)
        if given.source_windows:
            source["data.windows_per_epoch"] = given.source_windows
        rows = train(out, "source", source, epochs=given.source_epochs, seed=0)
        print(f"source: {given.source_epochs} epochs, bbox_mAP_50 {rows[-1]['val/bbox_mAP_50']:.3f}", flush=True)
        data = data_keys(given.data.resolve(), given.map)
        found: dict[str, list[dict[str, float]]] = {}
        checkpoint = out / "source" / "checkpoints" / "checkpoint_latest.pth"
        for seed in range(given.seeds):  # seeds outside, so that a slow minute hits all recipes alike
            for name, keys in recipes(given.epochs, given.tile, checkpoint).items():
                epochs = None if "training.stages" in keys else given.epochs
                rows = train(out, f"{name}_{seed}", {**data, **keys}, epochs=epochs, seed=seed)
                numbers = {metric: rows[-1].get(f"val/{metric}") or 0.0 for metric in SHOWN}
                numbers["seconds"] = sum(row["time/train_s"] for row in rows)
                found.setdefault(name, []).append(numbers)
                print(f"{name} seed {seed}:", {k: round(v, 3) for k, v in numbers.items()}, flush=True)
    for name, runs in found.items():
        cells = [
            f"{k} {mean(r[k] for r in runs):.3f} ({min(r[k] for r in runs):.3f}-{max(r[k] for r in runs):.3f})"
            for k in runs[0]
        ]
        print(f"{name:<12}", "  ".join(cells))


if __name__ == "__main__":
    main()
