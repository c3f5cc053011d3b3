"""Windows of a raster as the network's input, and what the network says of them: the part that workers share out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from cabruca.data import raster
from cabruca.data.sparse import Blocks
from cabruca.predict.found import Look, Reading
from cabruca.predict.windows import STRIDE_PX, Grid, Window
from cabruca.structures import Batch, Crowns, InputSpec, Prediction, Sample, collate

CACHE_BYTES = 32 << 20
"""Of decoded blocks: the row of windows at work, of rasters up to some ten thousand px wide."""

Bools = npt.NDArray[np.bool_]


class Network(Protocol):
    """Anything that says what is in pictures: a trained network, or in tests one that is told the truth."""

    def __call__(self, batch: Batch) -> list[Prediction]:
        """One prediction a picture, on the CPU, in px of that picture."""
        ...


@dataclass(frozen=True)
class Pixels:
    """One window that was read: the sample, and its known pixels `[h, w]` without padding."""

    window: Window
    sample: Sample
    valid: Bools


@dataclass(frozen=True)
class Reader:
    """Reads windows of one raster. Plain values only: it travels to workers.

    Args:
        path: of the raster. grid: of the windows. gsd_m: metres a grid pixel.
    """

    path: Path
    grid: Grid
    spec: InputSpec
    gsd_m: float | None

    @property
    def blocks(self) -> Blocks:
        """Which were written."""
        return _blocks_of(self.path, self.grid.hw, self.path.stat().st_mtime_ns)

    def read(self, windows: Sequence[Window]) -> list[Pixels]:
        """The windows that show anything.

        Raises:
            DataError: the raster cannot be read there.
        """
        found = [self._read(window) for window in windows]
        return [pixels for pixels in found if pixels is not None]

    def _read(self, window: Window) -> Pixels | None:
        pixels, valid = raster.read(self.path, self.spec.bands, window.rect, grid_hw=self.grid.hw)
        written = self.blocks.written(window.rect)
        if written is not None:
            valid &= written
        if not valid.any():
            return None
        image = torch.from_numpy(pixels.astype(np.float32)) / self.spec.scale
        known = torch.from_numpy(valid)
        fill = torch.tensor(self.spec.mean, dtype=torch.float32)[:, None, None]
        h, w = valid.shape
        # every window of the same size, so that they fit into one batch
        height, width = (_padded(min(self.grid.side, length)) for length in self.grid.hw)
        margin = (0, width - w, 0, height - h)
        moved = F.pad(known, margin, value=False)
        image = torch.where(moved, F.pad(image, margin), fill)
        return Pixels(window, self._sample(window, image, moved, (h, w)), valid)

    def _sample(self, window: Window, image: torch.Tensor, valid: torch.Tensor, hw: tuple[int, int]) -> Sample:
        x, y, _, _ = window.rect
        x0, y0, x1, y1 = window.core
        return Sample(
            image=image,
            valid=valid,
            crowns=Crowns.empty(),
            semantic=None,
            crown_diameter_px=None,
            density=None,
            key=window.index,
            picture=f"{self.path.name}:{y}:{x}",
            gsd_m=self.gsd_m,
            size_hw_px=hw,
            core_xyxy_px=(x0 - x, y0 - y, x1 - x, y1 - y),
        )


def look_at(network: Network, read: Sequence[Pixels], reading: Reading) -> list[Look]:
    """What the network sees in windows that were read."""
    if not read:
        return []
    predictions = network(collate([p.sample for p in read]))
    return [reading.look(p.window, found, p.valid) for p, found in zip(read, predictions, strict=True)]


@lru_cache(maxsize=4)
def _blocks_of(path: Path, grid_hw: tuple[int, int], changed_ns: int) -> Blocks:
    return Blocks(path, grid_hw)


def _padded(length: int) -> int:
    return -(-length // STRIDE_PX) * STRIDE_PX
