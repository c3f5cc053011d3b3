"""plots/pr_curve.png and the other pictures of the best validation, and plots/findings.json, what they are drawn of."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from cabruca.config.schema import Config
from cabruca.findings import Findings, rules
from cabruca.tracking.canvas import Sparingly
from cabruca.tracking.charts import CHARTS
from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.run_dir import RunDir
from cabruca.train.protocols import BaseCallback, Record, RunInfo, TrainResult

_log = logging.getLogger("cabruca")

FINDINGS = "findings.json"
"""Beside the pictures: `{epoch, metric, value, rules, findings}`, the last as `Findings.to_dict` has them."""


class Charts(BaseCallback):
    """Draws the best validation so far; the last one as long as the monitored metric has no value.

    Drawing takes about two seconds, so where epochs are short not each better validation is drawn at once; the last of
    them is, when the run ends. What was the best before a resume is read from `findings.json`.

    When the run is finished it says once whether the detection cap may have cost that validation crowns; a network that
    is still learning reaches it without need.
    """

    def __init__(self, run_dir: RunDir, config: Config) -> None:
        self._run_dir = run_dir
        self._monitor, self._minimize = config.training.monitor_metric, config.training.minimize_metric
        self._cap = config.validation.max_detections
        self._best: float | None = None
        self._shown: Findings | None = None
        self._waiting: tuple[Record, float | None] | None = None
        self._sparingly = Sparingly()

    def on_start(self, info: RunInfo) -> None:
        found = read_findings(self._run_dir.plots)
        if found is not None and info.resumed_epoch >= found["epoch"]:  # else: epochs that are made again
            self._best, self._shown = found["value"], found["findings"]

    def on_validation(self, record: Record) -> None:
        if record.findings is None:
            return
        value = record.metrics.get(self._monitor, math.nan)
        known = value if math.isfinite(value) else None
        if known is None and self._best is not None:
            return
        if known is not None and self._best is not None:
            better = known < self._best if self._minimize else known > self._best
            if not better:
                return
        self._best, self._waiting, self._shown = known, (record, known), record.findings
        if self._sparingly.due():
            self._draw()

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        self._draw()
        if result is not None and result.state == "finished" and self._shown is not None:
            warn_at_cap(self._shown, self._cap)

    def _draw(self) -> None:
        if self._waiting is None:
            return
        (record, value), self._waiting = self._waiting, None
        assert record.findings is not None
        shown = "no value" if value is None else f"{value:.4g}"
        title = f"{self._run_dir.name}   epoch {record.epoch}, {self._monitor} {shown}"
        beside = {"epoch": record.epoch, "metric": self._monitor, "value": value}
        with self._sparingly:
            write_charts(self._run_dir.plots, record.findings, title, beside)


def warn_at_cap(found: Findings, cap: int) -> None:
    """Say where `validation.max_detections` may have cost crowns."""
    if warning := found.cap_warning(cap):
        _log.warning("%s", warning)


def write_charts(folder: Path, found: Findings, title: str, beside: dict[str, Any] | None = None) -> list[Path]:
    """Write the pictures, and `findings.json` with `beside` in it; the paths of the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, draw in CHARTS.items():
        files.append(folder / f"{name}.png")
        write_atomic(files[-1], draw(found, title), durable=False)
    # last: the epoch that it names has been drawn
    write_atomic(
        folder / FINDINGS,
        to_json({**(beside or {}), "rules": rules(found), "findings": found.to_dict()}) + "\n",
        durable=False,
    )
    return files


def read_findings(plots: Path) -> dict[str, Any] | None:
    """What `findings.json` in this folder says, with `Findings` in it; None where there is none, or half of one."""
    try:
        told = json.loads((plots / FINDINGS).read_text(encoding="utf-8"))
        value = told.get("value")
        return {
            "epoch": int(told.get("epoch") or 0),
            "metric": told.get("metric"),
            "value": None if value is None else float(value),
            "findings": Findings.from_dict(told["findings"]),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
