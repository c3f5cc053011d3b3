"""plots/results.png: the losses and the monitored metric over the epochs, drawn when the run ends."""

from __future__ import annotations

import io
import json
import math
from typing import Any

from cabruca.config.schema import Config
from cabruca.tracking.files import write_atomic
from cabruca.tracking.run_dir import RunDir
from cabruca.train.protocols import BaseCallback, TrainResult


class ResultsPlot(BaseCallback):
    """Reads training_history.json, so that a resumed run shows all of its epochs."""

    def __init__(self, run_dir: RunDir, config: Config) -> None:
        self._run_dir = run_dir
        self._monitor = config.training.monitor_metric

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if not self._run_dir.history.is_file():
            return
        history = json.loads(self._run_dir.history.read_text(encoding="utf-8"))
        self._run_dir.plots.mkdir(parents=True, exist_ok=True)
        write_atomic(self._run_dir.plots / "results.png", draw(history, self._monitor), durable=False)


def draw(history: dict[str, list[Any]], monitor: str) -> bytes:
    """A PNG of two panels: training and validation loss; the monitored metric and its relatives.

    Args:
        history: `{name: [value an epoch]}`, None where there is none.
        monitor: name of the monitored metric.
    """
    # not pyplot: it keeps global state and is not safe in the background thread that draws
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses = [n for n in history if n.startswith(("train/", "val/")) and "loss" in n]
    scores = dict.fromkeys([monitor, *(n for n in history if n.startswith("val/") and n.endswith(_SCORES))])
    for axes, names, title in zip(
        figure.subplots(1, 2), (losses, [n for n in scores if n in history]), ("losses", "validation"), strict=True
    ):
        for name in names:
            values = [math.nan if v is None else v for v in history[name]]
            width = 2.2 if name in (monitor, "train/total_loss") else 1.0
            axes.plot(history["epoch"], values, label=name, linewidth=width, marker="." if len(values) < 30 else None)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if names:
            axes.legend(fontsize="small")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


_SCORES = ("/mAP", "/mAP_50", "/mIoU", "/canopy_iou", "_count_accuracy")
