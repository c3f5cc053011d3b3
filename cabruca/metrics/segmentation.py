"""Land cover metrics from a confusion matrix of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cabruca.structures import IGNORE

Ints = npt.NDArray[np.int64]


def confusion(truth: Tensor, found: Tensor, num_classes: int) -> Ints:
    """Pixels by true class (row) and predicted class (column), int64 `[K, K]`; 255 in `truth` is left out."""
    t, f = truth.numpy().astype(np.int64).reshape(-1), found.numpy().astype(np.int64).reshape(-1)
    known = t != IGNORE
    counts = np.bincount(t[known] * num_classes + f[known], minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def semantic_metrics(pixels: Ints | None, names: Sequence[str], canopy: Sequence[str]) -> dict[str, float]:
    """`iou/<class>`, `mIoU` and `canopy_iou`.

    IoU = TP / (TP + FP + FN) over all pixels of the validation set (Everingham et al. 2010, "The PASCAL VOC
    challenge"). A class that is neither in the truth nor in the prediction has no IoU (NaN) and is left out of the
    mean. Canopy is the union of the classes in `canopy` against the rest.

    Args:
        pixels: `[K, K]`, truth by row; None: no semantic truth, everything is NaN.
    """
    nan = float("nan")
    if pixels is None:
        return {**{f"iou/{n}": nan for n in names}, "mIoU": nan, "canopy_iou": nan}
    hit = np.diag(pixels).astype(np.float64)
    union = pixels.sum(axis=0) + pixels.sum(axis=1) - hit
    iou = np.divide(hit, union, out=np.full(len(names), nan), where=union > 0)
    tree = np.isin(np.array(names), np.array(canopy))
    both = pixels[np.ix_(tree, tree)].sum()
    either = pixels.sum() - pixels[np.ix_(~tree, ~tree)].sum()
    out = {f"iou/{name}": float(value) for name, value in zip(names, iou, strict=True)}
    out["mIoU"] = float(np.nanmean(iou)) if (union > 0).any() else nan
    out["canopy_iou"] = float(both / either) if either > 0 else nan
    return out
