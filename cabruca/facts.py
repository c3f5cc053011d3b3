"""What a checkpoint knows of the data it was trained on. A leaf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class TrainingFacts:
    """Facts of the training pictures, stored in the checkpoint under `task.data`; None = unknown.

    Attributes:
        gsd_m: median ground sampling distance of the training pictures as the network sees them, metres a pixel.
        crown_diameter_p95_px, crown_diameter_p95_m: 95th percentile of the annotated crown diameters.
        masks: instance class -> whether the training pictures hold masks of it.
        land_cover: whether any of them has land cover truth: without it, the semantic and the density head are as
            they were born, and what they say means nothing.
    """

    gsd_m: float | None = None
    crown_diameter_p95_px: float | None = None
    crown_diameter_p95_m: float | None = None
    masks: Mapping[str, bool] = field(default_factory=dict)
    land_cover: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain containers only, so that a checkpoint stays loadable with `weights_only=True`."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"masks": dict(self.masks)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingFacts:
        """Keys that are not known are left out.

        Raises:
            ValueError: a number is not one, or not positive.
        """
        numbers = ("gsd_m", "crown_diameter_p95_px", "crown_diameter_p95_m")
        found: dict[str, Any] = {name: values.get(name) for name in numbers}
        for name, value in found.items():
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise ValueError(f"task.data: {name} is {value!r}")
        masks = {str(k): bool(v) for k, v in dict(values.get("masks") or {}).items()}
        return cls(**found, masks=masks, land_cover=bool(values.get("land_cover", True)))
