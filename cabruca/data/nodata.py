"""Which pixels of an opened raster are known: by its NoData value, its mask, or an alpha band."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.windows import Window


def all_known(source: Any) -> bool:
    """Whether it has none of the three."""
    return not _states_a_mask(source) and _alpha(source) is None


def known_pixels(source: Any, window: Window, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """bool `shape` over the window, the nearest pixel's; NaN is not looked for.

    Raises:
        RasterioError: it cannot be read there.
    """
    how = {"window": window, "out_shape": shape, "resampling": Resampling.nearest}
    if _states_a_mask(source):
        return np.asarray(source.dataset_mask(**how) > 0)
    alpha = _alpha(source)
    return np.ones(shape, dtype=np.bool_) if alpha is None else np.asarray(source.read(alpha, **how) > 0)


def _states_a_mask(source: Any) -> bool:
    return any(flags != [MaskFlags.all_valid] for flags in source.mask_flag_enums)


def _alpha(source: Any) -> int | None:
    """Number of the alpha band. GDAL takes it for a mask after one or three bands alone: multispectral
    orthomosaics have it after more."""
    return next((k for k, meaning in enumerate(source.colorinterp, 1) if meaning == ColorInterp.alpha), None)
