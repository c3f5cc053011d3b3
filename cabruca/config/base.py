"""What every section of the schema is made of: the strict base class, value types, names of classes and parts."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A probability or a proportion, 0..1."""

AnchorSizes = Annotated[tuple[PositiveFloat, ...], Field(min_length=4)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
TileSize = Annotated[int, Field(ge=64, multiple_of=32)]
"""Side of a window, px."""

INSTANCE_NAMES = ("cacao_tree", "shade_tree")
PARTS = ("backbone", "heads", "custom")  # of the network, as parameter groups name them
SEMANTIC_NAMES = ("background", "cacao_tree", "shade_tree", "understory", "bare_soil", "shadows")


class Section(BaseModel):
    """Strict, frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())
