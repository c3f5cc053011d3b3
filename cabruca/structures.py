"""The shapes that data, model and metrics hand each other. It imports torch, `crops` and `ground` only.

N crowns, B pictures in a batch, C bands, H x W pixels. Boxes are `xyxy` in pixels of the picture they
belong to, x to the right, y down, the first pixel spanning 0..1. Masks stay *cropped*: a crown of
40 x 40 px in a window of 1024 x 1024 costs 1.6 kB, not 1 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from cabruca.crops import CroppedMasks as CroppedMasks  # noqa: PLC0414 (it is one of the shapes)
from cabruca.ground import Ground
from cabruca.input_spec import InputSpec as InputSpec  # noqa: PLC0414 (as above)

IGNORE = 255
"""Semantic id of pixels that take no part in loss or metrics."""

CROWN_STRIDE = 4
"""Input pixels per cell of the crown diameter map."""

DENSITY_STRIDE = 32
"""Input pixels per cell of the canopy density map."""

Edges = tuple[bool, bool, bool, bool]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Regions:
    """M places where crowns of a class are neither right nor wrong: groups (COCO's "crowd"), ignored categories, and
    crowns that lie mostly on NoData.

    Attributes:
        boxes_xyxy_px: float32 `[M, 4]`. labels: int64 `[M]`, the class it is about, 0 = every class.
        masks: one per region; without one the whole box is meant.
    """

    boxes_xyxy_px: Tensor
    labels: Tensor
    masks: CroppedMasks

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @classmethod
    def empty(cls) -> Regions:
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), CroppedMasks.empty())

    def to(self, device: torch.device | str) -> Regions:
        return Regions(self.boxes_xyxy_px.to(device), self.labels.to(device), self.masks.to(device))


@dataclass(frozen=True)
class Crowns:
    """Truth of one window: N crowns.

    Attributes:
        boxes_xyxy_px: float32 `[N, 4]`.
        labels: int64 `[N]`, 1 = first instance class (0 is background).
        masks: one per crown; a crown annotated by a box only has none.
        diameter_px: float32 `[N]`, crown diameter in pixels of this window.
        centre_xy_px: float32 `[N, 2]`, centre of the *whole* crown's box, in pixels of this window; outside of it for
            a crown that is mostly cut off. Left out: the centre of the box given.
        ignored: regions that are neither truth nor background.
    """

    boxes_xyxy_px: Tensor
    labels: Tensor
    masks: CroppedMasks
    diameter_px: Tensor
    centre_xy_px: Tensor = field(default=None)  # type: ignore[assignment]  # filled in below
    ignored: Regions = field(default_factory=Regions.empty)

    def __post_init__(self) -> None:
        if self.centre_xy_px is None:
            object.__setattr__(self, "centre_xy_px", (self.boxes_xyxy_px[:, :2] + self.boxes_xyxy_px[:, 2:]) / 2)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @property
    def ignore_xyxy_px(self) -> Tensor:
        """float32 `[M, 4]`: boxes of the ignored regions."""
        return self.ignored.boxes_xyxy_px

    @classmethod
    def empty(cls) -> Crowns:
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), CroppedMasks.empty(), torch.zeros(0))

    def to(self, device: torch.device | str) -> Crowns:
        return Crowns(
            boxes_xyxy_px=self.boxes_xyxy_px.to(device),
            labels=self.labels.to(device),
            masks=self.masks.to(device),
            diameter_px=self.diameter_px.to(device),
            centre_xy_px=self.centre_xy_px.to(device),
            ignored=self.ignored.to(device),
        )


def known_share(boxes_xyxy_px: Tensor, valid: Tensor) -> Tensor:
    """float32 `[N]`: share of known pixels among those that each box touches.

    Args:
        boxes_xyxy_px: `[N, 4]`; valid: bool `[H, W]`. Read off an integral image, so that N costs nothing.
    """
    height, width = valid.shape
    total = torch.zeros(height + 1, width + 1, dtype=torch.int32, device=valid.device)
    total[1:, 1:] = valid.to(torch.int32).cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    x0, y0 = (boxes_xyxy_px[:, k].floor().long().clamp(0, n - 1) for k, n in ((0, width), (1, height)))
    x1, y1 = (boxes_xyxy_px[:, k].ceil().long().clamp(1, n) for k, n in ((2, width), (3, height)))
    x1, y1 = torch.maximum(x1, x0 + 1), torch.maximum(y1, y0 + 1)
    known = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
    return known / ((x1 - x0) * (y1 - y0))


ENOUGH_KNOWN = 0.5
"""A crown of which a smaller share of the box is known pixels is neither truth nor prediction."""


@dataclass(frozen=True)
class Sample:
    """One window, ready for the network.

    Attributes:
        image: float32 `[C, H, W]`, scaled as the InputSpec says (not yet normalised).
        valid: bool `[H, W]`, False at NoData and padding.
        crowns: its truth.
        semantic: uint8 `[H, W]`, 255 = ignored (NoData and padding included); None: no semantic truth.
        crown_diameter_px: float32 `[H/4, W/4]`, diameter of the crown at the cell's centre, 0 = no crown or
            unknown; None: no crown of this window has a mask.
        density: float32 `[H/32, W/32]`, share of the cell's known pixels covered by tree classes, -1 =
            unknown; None with `semantic` None.
        key: 63-bit integer, a function of (seed, epoch, index): the root of every random draw made for it.
        picture: stable id of the window (validation gathers by it), e.g. "12:0:512" (image id, y, x).
        gsd_m: metres a pixel of this window, None = unknown.
        size_hw_px: height and width before padding; padding is at the right and at the bottom.
        core_xyxy_px: the part of the window that is counted in validation; the rest is context. Cores of a
            picture's windows cover it once. The whole window where there is no grid.
        inner_edges: left, top, right, bottom: whether the picture goes on beyond that edge of the window, so that
            crowns are cut there. Looked at where predictions are counted.
        ground: where the window lies, of evaluation windows; None: the window is a place of its own.
        labelled: bool `[H, W]`, part of `valid`: False also where nobody looked for crowns; None: all of `valid` is.
    """

    image: Tensor
    valid: Tensor
    crowns: Crowns
    semantic: Tensor | None
    crown_diameter_px: Tensor | None
    density: Tensor | None
    key: int
    picture: str
    gsd_m: float | None
    size_hw_px: tuple[int, int]
    core_xyxy_px: tuple[int, int, int, int]
    inner_edges: Edges = (False, False, False, False)
    ground: Ground | None = None
    labelled: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """B samples of one size. Dense truths are stacked with their "unknown" value where a sample has none.

    Attributes:
        images: float32 `[B, C, H, W]`; valid: bool `[B, H, W]`; crowns: B of them.
        semantic: uint8 `[B, H, W]`, 255 = ignored; crown_diameter_px: float32 `[B, H/4, W/4]`, 0 = unknown;
        density: float32 `[B, H/32, W/32]`, -1 = unknown.
        keys, pictures, gsd_m, sizes_hw_px, cores_xyxy_px, inner_edges, grounds: one per sample.
        labelled: bool `[B, H, W]`, or None where all that is valid is labelled too.
    """

    images: Tensor
    valid: Tensor
    crowns: list[Crowns]
    semantic: Tensor
    crown_diameter_px: Tensor
    density: Tensor
    keys: list[int]
    pictures: list[str]
    gsd_m: list[float | None]
    sizes_hw_px: list[tuple[int, int]]
    cores_xyxy_px: list[tuple[int, int, int, int]]
    inner_edges: list[Edges]
    grounds: list[Ground | None]
    labelled: Tensor | None = None

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def known(self) -> Tensor:
        """bool `[B, H, W]`: pixels whose truth is known. What is valid beyond them is seen, and never judged."""
        return self.valid if self.labelled is None else self.labelled

    def to(self, device: torch.device | str, *, dtype: torch.dtype | None = None) -> Batch:
        """All tensors on `device`; the pictures also as `dtype` (fp64 proofs)."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device, non_blocking=True)
        moved["images"] = moved["images"].to(dtype or self.images.dtype)
        moved["crowns"] = [c.to(device) for c in self.crowns]
        return Batch(**moved)

    def pin_memory(self) -> Batch:
        return replace(
            self,
            images=self.images.pin_memory(),
            valid=self.valid.pin_memory(),
            semantic=self.semantic.pin_memory(),
            crown_diameter_px=self.crown_diameter_px.pin_memory(),
            density=self.density.pin_memory(),
            labelled=None if self.labelled is None else self.labelled.pin_memory(),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size; absent dense truths become their "unknown" value."""

    def stack(values: list[Tensor | None], shape: tuple[int, int], unknown: float, dtype: torch.dtype) -> Tensor:
        return torch.stack([torch.full(shape, unknown, dtype=dtype) if v is None else v.to(dtype) for v in values])

    h, w = samples[0].image.shape[-2:]
    return Batch(
        images=torch.stack([s.image for s in samples]),
        valid=torch.stack([s.valid for s in samples]),
        crowns=[s.crowns for s in samples],
        semantic=stack([s.semantic for s in samples], (h, w), IGNORE, torch.uint8),
        crown_diameter_px=stack(
            [s.crown_diameter_px for s in samples], (h // CROWN_STRIDE, w // CROWN_STRIDE), 0.0, torch.float32
        ),
        density=stack([s.density for s in samples], (h // DENSITY_STRIDE, w // DENSITY_STRIDE), -1.0, torch.float32),
        keys=[s.key for s in samples],
        pictures=[s.picture for s in samples],
        gsd_m=[s.gsd_m for s in samples],
        sizes_hw_px=[s.size_hw_px for s in samples],
        cores_xyxy_px=[s.core_xyxy_px for s in samples],
        inner_edges=[s.inner_edges for s in samples],
        grounds=[s.ground for s in samples],
        labelled=None
        if all(s.labelled is None for s in samples)
        else torch.stack([s.valid if s.labelled is None else s.labelled for s in samples]),
    )


@dataclass(frozen=True)
class Prediction:
    """What the network says of one picture, on the CPU, in pixels of that picture (padding removed).

    Attributes:
        boxes_xyxy_px: float32 `[N, 4]`; scores: float32 `[N]`, falling; labels: int64 `[N]`.
        masks: cropped, None where the head has none.
        semantic: uint8 `[H, W]`, most likely class; None when the head is off.
        crown_diameter_px: float32 `[H/4, W/4]`; None when the head is off. Metres = this * gsd_m.
        density: float32 `[H/32, W/32]` in 0..1; None when the head is off.
    """

    boxes_xyxy_px: Tensor
    scores: Tensor
    labels: Tensor
    masks: CroppedMasks | None
    semantic: Tensor | None
    crown_diameter_px: Tensor | None
    density: Tensor | None

    def on_known_ground(self, known: Tensor) -> Prediction:
        """Without crowns that nobody can judge: too little of their box is `known`, bool `[H, W]`."""
        keep = known_share(self.boxes_xyxy_px, known) >= ENOUGH_KNOWN
        return replace(
            self,
            boxes_xyxy_px=self.boxes_xyxy_px[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            masks=self.masks if self.masks is None or bool(keep.all()) else self.masks.select(keep),
        )
