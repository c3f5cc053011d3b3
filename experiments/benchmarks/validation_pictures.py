"""What the pictures of a validation cost: `python experiments/benchmarks/validation_pictures.py`.

Pictures of 512 px with 60 crowns each: jittered, missed, mistaken and invented ones among the found, all with masks.
Printed: processor seconds of all metrics without the findings that are drawn and with them, side by side in each round,
and of drawing (five pictures of the validation, and results.png of a run of 100 epochs).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from cabruca.config.schema import ValidationConfig
from cabruca.findings import Findings
from cabruca.metrics import detection, evaluator
from cabruca.runtime import Runtime
from cabruca.structures import Prediction, collate
from cabruca.tracking.charting import write_charts
from cabruca.tracking.plots import draw

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests" / "support")]

from drawn import SPEC, crowns_of, drawn_sample  # noqa: E402 - beside the tests

NAMES = ("train/total_loss", "val/total_loss", "train/loss_instance", "train/loss_semantic", "val/mAP", "val/mAP_50")
NAMES += ("val/mIoU", "val/canopy_iou", "val/total_count_accuracy", "lr/heads", "lr/backbone", "train/grad_norm")


def filled(pictures: int, crowns: int) -> evaluator.Evaluator:
    """An evaluator that has seen the validation set."""
    out = evaluator.Evaluator(SPEC.instance_classes, SPEC.semantic_classes, ValidationConfig(), min_visible_share=0.3)
    for p in range(pictures):
        rng = np.random.default_rng(p)
        true = [(*rng.uniform(20, 492, 2), rng.uniform(8, 24), int(rng.integers(1, 3))) for _ in range(crowns)]
        moved = [(x + rng.normal(0, 2), y + rng.normal(0, 2), r * rng.uniform(0.8, 1.2), k) for x, y, r, k in true[5:]]
        moved += [(*rng.uniform(20, 492, 2), rng.uniform(8, 24), int(rng.integers(1, 3))) for _ in range(20)]
        sample, found = drawn_sample(true, size=512, index=p), crowns_of(moved)
        scores = torch.from_numpy(np.sort(rng.uniform(0.05, 1, len(moved)))[::-1].copy()).float()
        out.add(
            collate([sample]),
            [Prediction(found.boxes_xyxy_px, scores, found.labels, found.masks, sample.semantic, None, None)],
        )
    return out


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--crowns", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    own, alone = filled(given.pictures, given.crowns), Runtime.single()
    labels = frozenset({1, 2})
    nothing = Findings(SPEC.instance_classes, SPEC.semantic_classes, 0.5)
    own.measure(alone, mask_labels=labels)
    for k in range(given.rounds):
        with (
            mock.patch.object(detection, "_curves", return_value={}),
            mock.patch.object(evaluator, "findings_of", return_value=nothing),
        ):
            bare = seconds(lambda: own.measure(alone, mask_labels=labels))
        whole = seconds(lambda: own.measure(alone, mask_labels=labels))
        print(f"round {k}: metrics {bare:.3f} s, with findings {whole:.3f} s: {whole / bare:.3f}")
    _, found = own.measure(alone, mask_labels=labels)
    history = {"epoch": list(range(1, 101)), **{name: list(np.geomspace(2, 0.1, 100)) for name in NAMES}}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(given.rounds):
            five = seconds(lambda: write_charts(Path(folder), found, "benchmark"))
            one = seconds(lambda: draw(history, "val/mAP_50"))
            print(f"round {k}: five pictures {five:.2f} s, results.png {one:.2f} s")


if __name__ == "__main__":
    main()
