"""Ours beside a plain torchvision recipe at equal training seconds, alternating (A B A B) on an idle machine.

The plain recipe is any script that takes `DATA --minutes M` and prints, for its last evaluation, a line with
`trained <seconds> s`, `mAP_50` and `mAP` (box numbers first). Ours trains the configuration given for as many epochs
as fit the same seconds: one timed epoch first, then the run. Seconds are training seconds on both sides: data,
forward, backward and optimizer, without validation.

    python experiments/benchmarks/beside_plain.py --plain SCRIPT --data DIR --config FILE --minutes 2.43 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BOX = ("val/bbox_mAP_50", "val/bbox_mAP")
MASK = ("val/segm_mAP_50", "val/segm_mAP")


def plain(script: str, data: str, minutes: float) -> dict[str, float]:
    command = [sys.executable, Path(script).name, data, "--minutes", str(minutes)]
    out = subprocess.run(command, cwd=Path(script).parent, capture_output=True, text=True, check=True).stdout
    last = [line for line in out.splitlines() if "trained" in line][-1]
    print("  plain:", last, flush=True)
    seconds = float(re.search(r"trained (\d+)", last)[1])  # type: ignore[index]
    numbers = [float(v) for v in re.findall(r"mAP(?:_50)? ([0-9.]+)", last)]
    names = ("bbox_mAP_50", "bbox_mAP", "segm_mAP_50", "segm_mAP")
    return {"seconds": seconds, **dict(zip(names, numbers, strict=False))}


def ours(config: str, changes: list[str], epochs: int, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cabruca", "train", "--config", config, "--output-dir", folder, "--quiet"]
        command += ["--experiment-name", "run", "--epochs", str(epochs), "--seed", str(seed), "--no-tensorboard"]
        command += ["--val-frequency", str(epochs), *(word for change in changes for word in ("--set", change))]
        subprocess.run(command, check=True, capture_output=True, text=True)
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    return summary([r for r in rows if "time/train_s" in r])


def summary(epochs: list[dict[str, Any]]) -> dict[str, float]:
    found = {name.removeprefix("val/"): epochs[-1].get(name) for name in (*BOX, *MASK)}
    found = {k: v for k, v in found.items() if v is not None}
    return {"seconds": sum(r["time/train_s"] for r in epochs), "epochs": len(epochs), **found}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--plain", required=True)
    arguments.add_argument("--data", required=True)
    arguments.add_argument("--config", required=True)
    arguments.add_argument("--minutes", type=float, required=True)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--epochs", type=int, help="of ours; default: as many as fit, after one timed epoch")
    arguments.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    given = arguments.parse_args()
    epochs = given.epochs
    if epochs is None:
        # the second of two epochs: the first pays for warming up
        timed = ours(given.config, given.changes, 3, 0)
        epochs = max(1, int(given.minutes * 60 / (timed["seconds"] / 3)))
    sides: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
    for k in range(given.rounds):
        sides["plain"].append(plain(given.plain, given.data, given.minutes))
        sides["ours"].append(ours(given.config, given.changes, epochs, k))
        print("  ours: ", sides["ours"][-1], flush=True)
    for name in sorted(set(sides["plain"][0]) & set(sides["ours"][0])):
        a, b = (statistics.median(r[name] for r in sides[s]) for s in ("ours", "plain"))
        print(f"{name}: ours {a:.3f}, plain {b:.3f}, ratio {a / b:.3f}")


if __name__ == "__main__":
    main()
