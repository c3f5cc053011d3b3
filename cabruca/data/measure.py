"""What the training pictures say of themselves: the divisor of their pixel type, mean and deviation of each band."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cabruca.data import raster
from cabruca.data.pictures import PictureSet
from cabruca.draws import draw_key
from cabruca.errors import DataError
from cabruca.structures import InputSpec

if TYPE_CHECKING:
    from cabruca.data.dataset import TrainWindows

MEASURED_WINDOWS = 32
_MEASURE = 0x6D656173


def with_scale(spec: InputSpec, pictures: PictureSet) -> InputSpec:
    """`spec` with the divisor of the pictures' pixel type.

    Raises:
        DataError: they are of types with different divisors.
    """
    found = sorted({pictures.dtype(i) for i in range(len(pictures))})
    scales = {raster.default_scale(dtype) for dtype in found}
    if len(scales) > 1:
        raise DataError(
            f"training pictures have the pixel types {', '.join(found)}; set data.scale to one divisor for all"
        )
    return replace(spec, scale=scales.pop(), dtype=found[0])


def mean_and_std(windows: TrainWindows, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per band, of the known pixels of up to 32 windows, after division by `scale`.

    Raises:
        DataError: there is no known pixel.
    """
    count, total, squares = 0, 0.0, 0.0
    wanted = min(MEASURED_WINDOWS, windows.num_samples())
    for k in range(wanted):
        pixels, valid = windows.plain_window(draw_key(windows.seed, _MEASURE, k), k, wanted)
        known = pixels[:, valid].astype(np.float64) / scale
        count += known.shape[1]
        total, squares = total + known.sum(axis=1), squares + (known**2).sum(axis=1)
    if count == 0:
        raise DataError("the training windows show NoData only; check the pictures, or give data.mean and data.std")
    mean = np.asarray(total / count)
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std < 1e-6] = 1.0  # a band that is constant
    return tuple(mean.tolist()), tuple(std.tolist())
