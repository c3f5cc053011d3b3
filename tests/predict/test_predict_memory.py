"""Memory does not grow with the raster: four times the pixels and crowns, the same peak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).resolve().parents[1] / "support"


def peak_of(folder: Path, side: int) -> dict[str, Any]:
    """In processes of their own: one that writes the raster, one that maps it."""
    image = folder / f"{side}.tif"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT.parents[1]), str(SUPPORT)])}
    write = f"from pathlib import Path; from lattice import write_places; write_places(Path({str(image)!r}), {side})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", write], check=True, env=environment)
    words = [SUPPORT / "lattice.py", image, folder / f"{side}.gpkg", folder / f"rasters{side}"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, words)], check=True, env=environment, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_four_times_the_pixels_need_the_same_memory(tmp_path: Path) -> None:
    small, large = peak_of(tmp_path, 2400), peak_of(tmp_path, 4800)
    print(small, large)
    assert (small["crowns"], large["crowns"]) == (60**2, 120**2)
    assert large["mb"] <= 1.05 * small["mb"]
