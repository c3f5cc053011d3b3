"""One raster's windows, taken in order: crowns are stitched and let go, cells counted, the ground outlined.

What is held is what lies under the row of windows that is at work, never the whole raster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from shapely import affinity

from cabruca.data.outline import outlines
from cabruca.predict.found import OUTLINE_PX, Found, Look
from cabruca.predict.picture import Picture
from cabruca.predict.rows import Cell, Row, Shapes, cell_row, crown_rows, share, to_map
from cabruca.predict.stitch import Stitcher


@dataclass
class Totals:
    """Of the raster so far; `tree_px` None without the semantic head."""

    known_px: int = 0
    tree_px: int | None = None
    crowns: int = 0


@dataclass
class Sweep:
    """State of one raster between two windows.

    Args:
        names: instance classes, the first is label 1. area: in grid px, None: all. first_id: of its first crown.

    Attributes:
        row: window row that is at work. cells: window -> counts that may still grow. ground: outlined so far, grid px.
    """

    picture: Picture
    stitcher: Stitcher
    names: Sequence[str]
    area: Any
    simplify_px: float
    first_id: int
    row: int = 0
    cells: dict[int, Cell] = field(default_factory=dict)
    ground: Any = field(default_factory=shapely.Polygon)
    band: list[Any] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)

    def add(self, look: Look) -> tuple[list[Row], list[Row]]:
        """The next window; gives the rows of crowns and cells that it settles."""
        out = self.close_rows(look.window.row)
        self.stitcher.add(look.window.index, look.crowns)
        if look.known_px:
            self.cells[look.window.index] = Cell(look.known_px, look.tree_px, look.shade_px, [0] * len(self.names))
        self.totals.known_px += look.known_px
        if look.tree_px is not None:
            self.totals.tree_px = (self.totals.tree_px or 0) + look.tree_px
        self._outline(look)
        return out

    def finish(self) -> tuple[list[Row], list[Row]]:
        """After the last window."""
        return self.close_rows(len(self.stitcher.grid.rows))

    def close_rows(self, row: int) -> tuple[list[Row], list[Row]]:
        """All window rows before `row` are done."""
        crowns: list[Row] = []
        cells: list[Row] = []
        while self.row < row:
            crowns += self._crowns(list(self.stitcher.settled(self.row)))
            self.ground = shapely.union_all([self.ground, *self.band])
            self.band = []
            self.row += 1
            cells += self._settled_cells()
        return crowns, cells

    def _crowns(self, settled: Sequence[Found]) -> list[Row]:
        """Their rows, those outside the area left out; each is counted in the cell that its centre lies in."""
        if not settled:
            return []
        shapes = Shapes.of(settled)
        if self.area is not None:
            keep = np.asarray(shapely.intersects_xy(self.area, *shapes.centres.T))
            settled, shapes = [s for s, k in zip(settled, keep, strict=True) if k], shapes.select(keep)
        grid = self.stitcher.grid
        rows = np.searchsorted([s.core_end for s in grid.rows[:-1]], shapes.centres[:, 1], side="right")
        columns = np.searchsorted([s.core_end for s in grid.columns[:-1]], shapes.centres[:, 0], side="right")
        for found, window in zip(settled, (rows * len(grid.columns) + columns).tolist(), strict=True):
            if window in self.cells:
                self.cells[window].crowns[found.label - 1] += 1
        first = self.first_id + self.totals.crowns
        self.totals.crowns += len(settled)
        return crown_rows(settled, shapes, self.picture, first=first, names=self.names, simplify_px=self.simplify_px)

    def _settled_cells(self) -> list[Row]:
        """Cells that no crown to come can have its centre in."""
        grid = self.stitcher.grid
        line = min([grid.swept(self.row - 1), *(t.box[1] for t in self.stitcher.tracks)])
        done = [k for k in self.cells if grid.window(k).y.core_end <= line]
        return [cell_row(k, grid.window(k).core, self.cells.pop(k), self.picture, self.names) for k in sorted(done)]

    def _outline(self, look: Look) -> None:
        x0, y0, x1, y1 = look.window.core
        whole = shapely.box(x0, y0, x1, y1)
        if look.outline is None:
            self.band.append(whole)
            return
        for piece in outlines(look.outline):
            scaled = affinity.affine_transform(piece, [OUTLINE_PX, 0, 0, OUTLINE_PX, x0, y0])
            self.band.append(scaled.intersection(whole))

    def plot_row(self, *, score: str, checkpoint: str, sha256: str, settings: str, guessed: Sequence[str] = ()) -> Row:
        """The row of the whole raster. `guessed`: classes without an example in training."""
        ground = self.ground if self.area is None else self.ground.intersection(self.area)
        metres = self.picture.metres
        return {
            "image": self.picture.name,
            "gsd_m": self.picture.gsd_m,
            "area_ha": None if metres is None else self.totals.known_px * metres.area / 1e4,
            "n_crowns": self.totals.crowns,
            "canopy_cover": share(self.totals.tree_px, self.totals.known_px),
            "score": score,
            "checkpoint": checkpoint,
            "checkpoint_sha256": sha256,
            "settings": settings,
            "guessed_classes": ", ".join(guessed) or None,
            "wkb": to_map(_polygons(ground), self.picture).wkb_hex,
        }


def _polygons(geometry: Any) -> shapely.MultiPolygon:
    """The polygons of any geometry, as one."""
    pieces = [g for g in getattr(geometry, "geoms", [geometry]) if g.geom_type == "Polygon" and not g.is_empty]
    return shapely.MultiPolygon(pieces)
