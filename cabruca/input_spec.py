"""How pictures become the network's input. A leaf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class InputSpec:
    """How a picture becomes the network's input. Travels in the checkpoint; evaluate and predict apply it.

    Attributes:
        bands: 1-based band numbers read from the raster, in order.
        scale: pixel values are divided by it (255 for uint8); mean, std: per band, after scaling.
        tile_size: side of a training window, px; gsd_m: metres a pixel that windows were resampled to, None = native.
        category_map: dataset category -> class name ("ignore" drops it).
        instance_classes, semantic_classes: names; instance_classes[0] is class 1, semantic_classes[0] class 0.
        dtype: pixel type that `scale` was derived from; None: `data.scale` was given, and holds for any type.
    """

    bands: tuple[int, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tile_size: int
    gsd_m: float | None
    category_map: Mapping[str, str] = field(default_factory=dict)
    instance_classes: tuple[str, ...] = ()
    semantic_classes: tuple[str, ...] = ()
    dtype: str | None = None

    def room(self, hw_px: tuple[int, int]) -> float:
        """Area of a picture of `hw_px` rows and columns in training windows, at least 1: so many times the crowns of
        one may be in it."""
        return max(1.0, hw_px[0] * hw_px[1] / self.tile_size**2)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers only, so that a checkpoint stays loadable with `weights_only=True`."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v for k, v in out.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        known = {f.name for f in fields(cls)}
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return cls(**plain)
