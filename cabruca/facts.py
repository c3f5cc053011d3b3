"""What a checkpoint knows of the data it was trained on. A leaf."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
        crowns: instance class -> crowns of the training pictures; empty: unknown.
    """

    gsd_m: float | None = None
    crown_diameter_p95_px: float | None = None
    crown_diameter_p95_m: float | None = None
    masks: Mapping[str, bool] = field(default_factory=dict)
    land_cover: bool = True
    crowns: Mapping[str, int] = field(default_factory=dict)

    @property
    def guessed(self) -> tuple[str, ...]:
        """Classes without one example in training; none where that is unknown."""
        return tuple(name for name, count in self.crowns.items() if count == 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers only, so that a checkpoint stays loadable with `weights_only=True`."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "masks": dict(self.masks),
            "crowns": dict(self.crowns),
        }

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
        crowns = {str(k): int(v) for k, v in dict(values.get("crowns") or {}).items()}
        return cls(**found, masks=masks, land_cover=bool(values.get("land_cover", True)), crowns=crowns)


def guesses(guessed: Iterable[str], crowns: Mapping[str, int]) -> list[str]:
    """A line for each class that had no example in training and has crowns on a map all the same.

    Args:
        guessed: such classes. crowns: class -> crowns on the map.
    """
    found = {name: crowns.get(name, 0) for name in guessed}
    told = {name: "1 crown is a guess" if n == 1 else f"{n} crowns are guesses" for name, n in found.items() if n}
    return [
        f"class '{name}' had no example in training: its {said}; leave it out of counts, or train with examples of it"
        for name, said in told.items()
    ]
