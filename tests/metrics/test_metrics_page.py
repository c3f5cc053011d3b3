"""docs/metrics.md names every metric; the benchmark keeps its promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from drawn import SPEC

from cabruca.metrics.agroforestry import agroforestry_names
from cabruca.metrics.counts import count_metrics

ROOT = Path(__file__).resolve().parents[2]


def documented() -> set[str]:
    """Names in the first column of the page's tables; `_x` behind a name stands for it with its last words replaced,
    or with `_x` added, and `<species>` for each species."""
    out: set[str] = set()
    for line in (ROOT / "docs/metrics.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("| `"):
            continue
        own: set[str] = set()
        for name in re.findall(r"`([^`]+)`", line.split("|")[1]):
            cuts = {part[:k] for part in own for k in [len(part), *(m.start() for m in re.finditer("_", part))]}
            own |= {cut + name for cut in cuts} if name.startswith("_") else {name}
        out |= {n.replace("<species>", s) for n in own for s in ("cacao", "shade")}
    return out


def test_every_name_is_documented() -> None:
    counts = count_metrics([], SPEC.instance_classes, score_threshold=0.5)
    assert agroforestry_names(SPEC.instance_classes, inventory=True) | set(counts) <= documented()


def test_a_name_that_is_not_documented_is_seen() -> None:
    assert "understory_per_ha" not in documented()


def test_the_benchmark_of_the_page_measures_what_it_says() -> None:
    script = ROOT / "experiments/benchmarks/agroforestry_growth.py"
    command = [sys.executable, str(script), "--sizes", "1000", "3000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [int(row[0].replace(",", "")) // 1000 for row in rows] == [1, 3]
    assert all(0 < float(row[1]) < float(row[2]) * 10 for row in rows)
