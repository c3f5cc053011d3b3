"""Binary masks that stay cropped: each is its own small rectangle. A leaf: it imports torch and numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class CroppedMasks:
    """N binary masks, each stored as its own small rectangle.

    Attributes:
        pixels: uint8 `[sum(w*h)]`, 1 inside the crown, rows of each rectangle one after the other.
        rect_xywh_px: int64 `[N, 4]`, where each rectangle lies; w = h = 0 means "this crown has no mask".
    """

    pixels: Tensor
    rect_xywh_px: Tensor

    def __len__(self) -> int:
        return int(self.rect_xywh_px.shape[0])

    @property
    def starts(self) -> Tensor:
        """int64 `[N]`: where each rectangle begins in `pixels`."""
        sizes = self.rect_xywh_px[:, 2] * self.rect_xywh_px[:, 3]
        return torch.cumsum(sizes, 0) - sizes

    @property
    def has_mask(self) -> Tensor:
        """bool `[N]`."""
        return self.rect_xywh_px[:, 2] * self.rect_xywh_px[:, 3] > 0

    @classmethod
    def empty(cls, n: int = 0) -> CroppedMasks:
        """`n` crowns without masks."""
        return cls(torch.zeros(0, dtype=torch.uint8), torch.zeros(n, 4, dtype=torch.int64))

    @classmethod
    def from_crops(cls, crops: Sequence[tuple[int, int, npt.NDArray[np.uint8]] | None]) -> CroppedMasks:
        """From `(x, y, uint8 [h, w])` a crown, None where a crown has no mask."""
        rects = [(0, 0, 0, 0) if c is None else (c[0], c[1], c[2].shape[1], c[2].shape[0]) for c in crops]
        flat = [np.ascontiguousarray(c[2], dtype=np.uint8).reshape(-1) for c in crops if c is not None]
        pixels = torch.from_numpy(np.concatenate(flat)) if flat else torch.zeros(0, dtype=torch.uint8)
        return cls(pixels, torch.tensor(rects, dtype=torch.int64).reshape(-1, 4))

    @classmethod
    def together(cls, parts: Sequence[CroppedMasks]) -> CroppedMasks:
        """All of them, one after the other; at least one."""
        return cls(torch.cat([p.pixels for p in parts]), torch.cat([p.rect_xywh_px for p in parts]))

    def crop(self, i: int) -> tuple[int, int, Tensor]:
        """`(x, y, uint8 [h, w])` of crown `i`."""
        x, y, w, h = (int(v) for v in self.rect_xywh_px[i])
        start = int(self.starts[i])
        return x, y, self.pixels[start : start + w * h].reshape(h, w)

    def areas_px(self) -> Tensor:
        """int64 `[N]`: pixels inside each crown (0 where there is no mask)."""
        sizes = self.rect_xywh_px[:, 2] * self.rect_xywh_px[:, 3]
        owner = torch.repeat_interleave(torch.arange(len(self), device=sizes.device), sizes)
        return torch.zeros(len(self), dtype=torch.int64, device=sizes.device).index_add_(0, owner, self.pixels.long())

    def select(self, keep: Tensor) -> CroppedMasks:
        """The masks at integer (or bool) `keep`, in that order."""
        index = keep.nonzero().flatten() if keep.dtype == torch.bool else keep
        crops = [self.pixels[s : s + n] for s, n in zip(*self._spans(index), strict=True)]
        pixels = torch.cat(crops) if crops else self.pixels[:0]
        return CroppedMasks(pixels, self.rect_xywh_px[index])

    def _spans(self, index: Tensor) -> tuple[list[int], list[int]]:
        sizes = (self.rect_xywh_px[:, 2] * self.rect_xywh_px[:, 3])[index]
        return self.starts[index].tolist(), sizes.tolist()

    def dense(self, height: int, width: int) -> Tensor:
        """uint8 `[N, height, width]`; for pictures and tests, not for training."""
        out = torch.zeros(len(self), height, width, dtype=torch.uint8)
        for i in range(len(self)):
            x, y, m = self.crop(i)
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + m.shape[1], width), min(y + m.shape[0], height)
            if x1 > x0 and y1 > y0:
                out[i, y0:y1, x0:x1] = m[y0 - y : y1 - y, x0 - x : x1 - x]
        return out

    def to(self, device: torch.device | str) -> CroppedMasks:
        return CroppedMasks(self.pixels.to(device), self.rect_xywh_px.to(device))
