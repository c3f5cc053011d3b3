"""The state of a sweep as JSON holds it, and back: exactly, to the last bit of every number."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

import numpy as np
import shapely

from cabruca.predict.found import Found
from cabruca.predict.rows import Cell
from cabruca.predict.stitch import Track
from cabruca.predict.sweep import Sweep, Totals

Plain = dict[str, Any]


def to_plain(sweep: Sweep) -> Plain:
    """Everything that changes as windows are added."""
    stitcher = sweep.stitcher
    return {
        "row": sweep.row,
        "cells": {str(k): asdict(v) for k, v in sweep.cells.items()},
        "ground": sweep.ground.wkb_hex,
        "band": [g.wkb_hex for g in sweep.band],
        "totals": asdict(sweep.totals),
        "first_id": sweep.first_id,
        "made": stitcher.made,
        "seen": sorted(stitcher.seen),
        "tracks": [[t.number, [_found_to_plain(m) for m in t.members]] for t in stitcher.tracks],
    }


def restore(sweep: Sweep, plain: Plain) -> None:
    """Bring a fresh sweep to where `plain` was taken."""
    sweep.row = plain["row"]
    sweep.cells = {int(k): Cell(**v) for k, v in plain["cells"].items()}
    sweep.ground = shapely.from_wkb(plain["ground"])
    sweep.band = [shapely.from_wkb(g) for g in plain["band"]]
    sweep.totals = Totals(**plain["totals"])
    sweep.first_id = plain["first_id"]
    stitcher = sweep.stitcher
    stitcher.made, stitcher.seen = plain["made"], set(plain["seen"])
    stitcher.tracks = [Track(n, [_found_from_plain(m) for m in members]) for n, members in plain["tracks"]]


def _found_to_plain(found: Found) -> list[Any]:
    mask: list[Any] | None = None
    if found.mask is not None:
        x, y, pixels = found.mask
        mask = [x, y, *pixels.shape, base64.b64encode(np.packbits(pixels).tobytes()).decode()]
    return [found.window, found.label, found.score, list(found.box), mask, found.canopy_share, found.cut,
            found.clearance]  # fmt: skip


def _found_from_plain(plain: list[Any]) -> Found:
    window, label, score, box, packed, canopy_share, cut, clearance = plain
    mask = None
    if packed is not None:
        x, y, h, w, text = packed
        bits = np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8), count=h * w)
        mask = (x, y, bits.reshape(h, w).astype(np.bool_))
    x0, y0, x1, y1 = box
    return Found(window, label, score, (x0, y0, x1, y1), mask, canopy_share, cut, clearance)
