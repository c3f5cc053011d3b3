"""Peak memory of one training step: 1024 px, 500 crowns with masks; ours beside torchvision's own path.

Both sides share the backbone, pyramid and anchors; torchvision's MaskRCNN gets the dense `[500, 1024, 1024]` masks
that it wants, ours the cropped ones. Each side runs in its own process; what is compared is the growth of the peak
resident set from after the model is built to after one forward and backward pass in fp32.

    python experiments/benchmarks/step_memory.py [--crowns 500] [--side 1024]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from drawn import SPEC, crowns_of, drawn_sample

from cabruca.config.schema import Config, ModelConfig
from cabruca.model.build import build_model
from cabruca.structures import Sample, collate

MODEL = ModelConfig(
    backbone="tf_efficientnet_lite0", fpn_channels=128, anchor_sizes_px=(16.0, 32.0, 64.0, 128.0), proposals=500,
    rois_per_picture=128, mask_head_layers=2,
)  # fmt: skip


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def picture(side: int, crowns: int) -> Sample:
    rng = np.random.default_rng(0)
    discs = [(*rng.uniform(30, side - 30, 2), rng.uniform(8, 28), int(rng.integers(1, 3))) for _ in range(crowns)]
    sample = drawn_sample(discs[:0], size=side)
    return Sample(**{**sample.__dict__, "crowns": crowns_of(discs)})


def ours(side: int, crowns: int) -> float:
    model = build_model(Config(model=MODEL), SPEC).train()
    batch = collate([picture(side, crowns)])
    before = peak_mb()
    terms = model(batch).terms
    torch.stack([v.sum() for v in terms.heads.values()]).sum().backward()
    return peak_mb() - before


def torchvisions(side: int, crowns: int) -> float:
    from torch import nn
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    class Maps(nn.Module):
        out_channels = MODEL.fpn_channels

        def __init__(self) -> None:
            super().__init__()
            self.inner = build_model(Config(model=MODEL), SPEC).backbone

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {str(i): m for i, m in enumerate(self.inner(x))}

    names = ["0", "1", "2", "3"]
    anchors = AnchorGenerator(tuple((s,) for s in MODEL.anchor_sizes_px), (MODEL.anchor_ratios,) * 4)
    model = MaskRCNN(
        Maps(), 3, min_size=side, max_size=side, rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(names, 7, 2), mask_roi_pool=MultiScaleRoIAlign(names, 14, 2),
        box_batch_size_per_image=MODEL.rois_per_picture, rpn_pre_nms_top_n_train=500, rpn_post_nms_top_n_train=500,
    ).train()  # fmt: skip
    sample = picture(side, crowns)
    before = peak_mb()
    truth = sample.crowns
    target = {
        "boxes": truth.boxes_xyxy_px, "labels": truth.labels, "masks": truth.masks.dense(side, side),
    }  # fmt: skip
    losses = model([sample.image], [target])
    torch.stack(list(losses.values())).sum().backward()
    return peak_mb() - before


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--crowns", type=int, default=500)
    arguments.add_argument("--side", type=int, default=1024)
    arguments.add_argument("--only", choices=["ours", "torchvision"])
    given = arguments.parse_args()
    if given.only:
        side = ours if given.only == "ours" else torchvisions
        print(json.dumps(side(given.side, given.crowns)))
        return
    command = [sys.executable, __file__, "--crowns", str(given.crowns), "--side", str(given.side), "--only"]
    found = {
        name: float(json.loads(subprocess.run([*command, name], capture_output=True, check=True, text=True).stdout))
        for name in ("ours", "torchvision")
    }
    print(f"a step of {given.side} px with {given.crowns} crowns: ours {found['ours']:.0f} MB, torchvision "
          f"{found['torchvision']:.0f} MB, ratio {found['ours'] / found['torchvision']:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
