"""Does a score that was chosen on some pictures count right on others? Half of them choose, the other half is counted.

    python experiments/benchmarks/operating_point.py --checkpoint CKPT --images DIR --annotations COCO.json \
        [--map CATEGORY=CLASS]

Prints the count accuracy and F1 at the fixed 0.5, and at the scores chosen by count and by F1, as means over random
halves (both ways round), and the seconds that choosing took beside those of the whole validation.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from cabruca.cli.options import read_map
from cabruca.evaluation import load_model, with_categories
from cabruca.metrics.records import PictureRecord
from cabruca.metrics.thresholds import Sweep
from cabruca.thresholding import Tuner, suppressed


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--checkpoint", "--images", "--annotations"):
        parser.add_argument(name, required=True)
    parser.add_argument("--map", action="append", default=[])
    parser.add_argument("--halves", type=int, default=50)
    asked = parser.parse_args()
    model, config, spec = load_model(asked.checkpoint)
    tuner = Tuner(model, config, with_categories(spec, read_map(asked.map)), "cpu", "count")
    began = time.perf_counter()
    records: list[PictureRecord] = []
    for batch, found in tuner.passes(asked.images, asked.annotations, config):
        records += tuner.records(batch, [suppressed(f, tuner.own_nms, tuner.cap) for f in found])
    whole = time.perf_counter() - began
    began = time.perf_counter()
    Sweep.of(records, 1).best()
    print(f"{len(records)} windows in {whole:.2f} s; choosing {time.perf_counter() - began:.3f} s")
    rng, rows = np.random.default_rng(0), {"0.5": [], "count": [], "f1": []}
    for _ in range(asked.halves):
        order = rng.permutation(len(records))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        for chooses, counted in ((first, second), (second, first)):
            there = Sweep.of([records[i] for i in counted], 1)
            for name, row in rows.items():
                best = None if name == "0.5" else Sweep.of([records[i] for i in chooses], 1).best(name)
                row.append(there.at(0.5 if best is None else best.score))
    for name, choices in rows.items():
        shown = {k: np.mean([getattr(c, k) for c in choices]) for k in ("score", "count_accuracy", "f1")}
        print(name, {k: round(float(v), 3) for k, v in shown.items()})


if __name__ == "__main__":
    main()
