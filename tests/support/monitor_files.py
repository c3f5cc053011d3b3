"""Folders as runs, studies and predictions leave them, drawn in milliseconds for the monitor's tests."""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cabruca.config.load import to_yaml
from cabruca.config.study import Study, load_study
from cabruca.tracking.files import to_json
from cabruca.tracking.history import columns
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal

BOOT = 1  # process 1 runs as long as the machine does


def draw_run(
    outputs: Path,
    name: str,
    *,
    epochs: int = 4,
    steps: int = 6,
    state: str = "finished",
    age_s: float = 0.0,
    pid: int = BOOT,
    lr: float = 0.01,
    torn: bool = False,
    best: float = 0.6,
) -> Path:
    """A run folder. `state` running with an `age_s` above 60 is a run that died; `torn`: half a last row."""
    run = outputs / name
    (run / "checkpoints").mkdir(parents=True)
    now = time.time() - age_s
    config = {
        "experiment_name": run.name,
        "output_dir": str(run.parent),
        "optimizer": {"lr": lr},
        "training": {"num_epochs": max(epochs, 1), "monitor_metric": "val/mAP_50"},
    }
    (run / "config.yaml").write_text(to_yaml(config))
    environment = {"time": now - 60 * epochs, "device": "cpu", "gpu": None, "packages": {"torch": "2.9"}}
    (run / "environment.json").write_text(json.dumps(environment))
    status = {"state": state, "pid": pid, "host": socket.gethostname(), "heartbeat": now, "epoch": epochs}
    (run / "status.json").write_text(json.dumps({**status, "message": f"{state} as drawn"}))
    rows = draw_rows(epochs, steps, now, best=best, lr=lr)
    text = "".join(to_json(row) + "\n" for row in rows)
    (run / "metrics.jsonl").write_text(text + ('{"time": 17, "sta' if torn else ""))
    ends = [row for row in rows if "val/mAP_50" in row]
    (run / "training_history.json").write_text(to_json(columns(ends)))
    (run / "train.log").write_text("2026-11-26 12:00:00,000 INFO cabruca: as drawn\n")
    for number in range(1, epochs + 1):
        draw_checkpoint(run, f"checkpoint_epoch_{number}", epoch=number, seconds=now + number)
    if epochs:
        draw_checkpoint(run, "checkpoint_best", epoch=epochs, seconds=now + epochs)
        draw_checkpoint(run, "checkpoint_latest", epoch=epochs, seconds=now + epochs + 1)
    return run


def draw_rows(epochs: int, steps: int, now: float, *, best: float = 0.6, lr: float = 0.01) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl: one a step, one more at each epoch's end."""
    rows: list[dict[str, Any]] = []
    for step in range(1, epochs * steps + 1):
        epoch, last = (step - 1) // steps, step % steps == 0
        loss = 2.0 * math.exp(-step / (steps * 3)) + 0.2 * math.sin(step)
        own = {"time": now - 60 * (epochs * steps - step), "stage": 0, "epoch": epoch, "step": step}
        train = {"train/total_loss": loss, "train/loss_instance": loss / 2, "train/grad_norm": 1 + loss}
        rows.append({**own, **train, "lr/default": lr, "time/images_per_s": 3.0})
        if last:
            value = best * (1 - math.exp(-(epoch + 1) / 2))
            val = {"val/total_loss": loss + 0.2, "val/mAP_50": value, "val/canopy_iou": value, "val/undefined": None}
            system = {"system/cpu_percent": 90.0, "system/process_rss_mb": 800.0, "system/ram_percent": 40.0}
            rows.append({**own, "epoch": epoch + 1, **train, **val, **system, "time/epoch_s": 60.0})
    return rows


def draw_checkpoint(run: Path, name: str, *, epoch: int, seconds: float = 0.0, size: int = 2_000) -> Path:
    """A file and the sidecar that vouches for it."""
    path = run / "checkpoints" / f"{name}.pth"
    content = os.urandom(size)
    path.write_bytes(content)
    sidecar = {"epoch": epoch, "step": 6 * epoch, "metric": 0.1 * epoch, "bytes": size, "time": seconds}
    path.with_suffix(".json").write_text(json.dumps({**sidecar, "sha256": hashlib.sha256(content).hexdigest()}))
    return path


SPACE = {"optimizer.lr": {"loguniform": [1e-5, 1e-2]}, "optimizer.weight_decay": {"uniform": [0.0, 0.2]}}


def draw_study(outputs: Path, name: str = "drawn", *, trials: int = 8, metrics: int = 1) -> StudyDir:
    """A study that ended: ASHA has stopped some, one trial failed; with its journal, autopsy and optuna.db."""
    study = _study(outputs, name, trials, metrics)
    folder = StudyDir.create(study)
    with Journal(folder.results) as journal:
        for number in range(trials):
            _trial(journal, study, folder, number)
    status = {"state": "finished", "pid": BOOT, "host": socket.gethostname(), "heartbeat": time.time(), "epoch": 0}
    folder.status.write_text(json.dumps({**status, "message": f"{trials} trials"}))
    _optuna(folder, study, trials)
    return folder


def _study(outputs: Path, name: str, trials: int, metrics: int) -> Study:
    folder = outputs / "studies" / name
    folder.mkdir(parents=True)
    base = {
        "output_dir": str(outputs),
        "training": {"num_epochs": 9, "monitor_metric": "val/mAP_50"},
        "data": {"num_workers": 0},
    }
    (folder / "given_base.yaml").write_text(to_yaml(base))
    raw: dict[str, Any] = {"name": name, "config": "given_base.yaml", "search_space": SPACE}
    raw["num_trials"] = max(trials, 1)
    if metrics > 1:
        raw |= {"metric": ["val/mAP_50", "time/epoch_s"], "mode": ["max", "min"], "scheduler": {"type": "none"}}
    (folder / "given.yaml").write_text(to_yaml({**raw, "max_epochs": 9}))
    return load_study(folder / "given.yaml")


def params_of(number: int) -> dict[str, float]:
    return {"optimizer.lr": 10 ** (-4.5 + 0.3 * number), "optimizer.weight_decay": 0.02 * number}


def end_of(number: int) -> tuple[str, int]:
    """State and epochs of a trial: 3 of 4 are stopped at a rung, trial 2 failed."""
    if number == 2:
        return "failed", 2
    return ("finished", 9) if number % 4 == 1 else ("stopped", 1 if number % 2 else 3)


def _trial(journal: Journal, study: Study, folder: StudyDir, number: int) -> None:
    state, epochs = end_of(number)
    journal.append({"event": "asked", "trial": number, "params": params_of(number)})
    journal.append({"event": "started", "trial": number})
    values: dict[str, float] = {}
    for epoch in range(1, epochs + 1):
        values = {"val/mAP_50": 0.05 * number + 0.04 * epoch, "time/epoch_s": 10.0 + number}
        journal.append({"event": "result", "trial": number, "epoch": epoch, "step": 6 * epoch, "metrics": values})
    if state == "stopped":
        journal.append({"event": "decided", "trial": number, "epoch": epochs, "decision": "stop", "rung": epochs})
    ended = None if state == "failed" else [values[name] for name in study.metrics]
    reason = "RuntimeError: out of luck" if state == "failed" else ""
    end = {"event": "ended", "trial": number, "state": state, "epoch": epochs, "values": ended, "reason": reason}
    journal.append(end)
    if state == "failed":
        run = folder.trial_dir(number).path
        run.mkdir(parents=True)
        autopsy: Mapping[str, Any] = {
            "reason": reason,
            "memory_peak_mb": 900.0,
            "trace": ["Traceback (most recent call last):", reason],
            "difference_from_best": {"optimizer.lr": [0.0001, 0.002]},
        }
        (run / "autopsy.json").write_text(json.dumps(autopsy))


def _optuna(folder: StudyDir, study: Study, trials: int) -> None:
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    own = optuna.create_study(
        study_name=study.config.name,
        storage=f"sqlite:///{folder.optuna_db.absolute()}",
        directions=list(study.directions),
    )
    spaces = {
        "optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True),
        "optimizer.weight_decay": FloatDistribution(0, 0.2),
    }
    for number in range(trials):
        state, epochs = end_of(number)
        params = {"optimizer.lr": min(params_of(number)["optimizer.lr"], 1e-2), "optimizer.weight_decay": 0.02 * number}
        value = 0.05 * number + 0.04 * epochs
        values = [value, 10.0 + number][: len(study.metrics)]
        many = len(study.metrics) > 1  # such a study stops none
        states = {"failed": TrialState.FAIL, "stopped": TrialState.COMPLETE if many else TrialState.PRUNED}
        trial = create_trial(
            state=states.get(state, TrialState.COMPLETE),
            params=params,
            distributions=spaces,
            values=None if state == "failed" else values,
        )
        own.add_trial(trial)


def draw_prediction(folder: Path, *, size_px: int = 400, gsd_m: float = 0.1) -> Path:
    """A georeferenced picture and a GeoPackage of crowns over it, as `cabruca predict` writes it."""
    import pyogrio
    import rasterio
    import shapely
    from rasterio.transform import from_origin

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    rgb = random.integers(60, 120, (3, size_px, size_px), dtype=np.uint8)
    left, top = 500_000.0, 8_350_000.0
    centres = random.uniform(40, size_px - 40, (24, 2))
    radii = random.uniform(10, 30, 24)
    yy, xx = np.mgrid[:size_px, :size_px]
    for (x, y), radius in zip(centres, radii, strict=True):
        rgb[1, (xx - x) ** 2 + (yy - y) ** 2 < radius**2] = 190
    transform = from_origin(left, top, gsd_m, gsd_m)
    kept = {"driver": "GTiff", "height": size_px, "width": size_px, "count": 3, "dtype": "uint8", "crs": "EPSG:32724"}
    with rasterio.open(folder / "plot_a.tif", "w", transform=transform, **kept) as file:
        file.write(rgb)
    shapes = [
        shapely.Point(left + x * gsd_m, top - y * gsd_m).buffer(r * gsd_m)
        for (x, y), r in zip(centres, radii, strict=True)
    ]
    classes = np.array(["cacao_tree" if r < 22 else "shade_tree" for r in radii], dtype=object)
    fields = {
        "crown_id": np.arange(24),
        "class": classes,
        "score": np.linspace(0.5, 0.99, 24),
        "area_m2": np.pi * (radii * gsd_m) ** 2,
        "diameter_m": 2 * radii * gsd_m,
        "shape": np.array(["mask"] * 24, dtype=object),
        "image": np.array(["plot_a.tif"] * 24, dtype=object),
    }
    path = folder / "crowns.gpkg"
    wkb = np.array([shapely.to_wkb(shape) for shape in shapes], dtype=object)
    write = {"driver": "GPKG", "crs": "EPSG:32724"}
    names, values = list(fields), list(fields.values())
    pyogrio.raw.write(path, wkb, values, names, layer="crowns", geometry_type="Polygon", **write)
    side = size_px * gsd_m
    box = np.array([shapely.to_wkb(shapely.box(left, top - side, left + side, top))], dtype=object)
    plot = {
        "image": np.array(["plot_a.tif"], dtype=object),
        "gsd_m": np.array([gsd_m]),
        "area_ha": np.array([0.16]),
        "n_crowns": np.array([24]),
        "canopy_cover": np.array([np.nan]),
    }
    names, values = list(plot), list(plot.values())
    pyogrio.raw.write(path, box, values, names, layer="plots", geometry_type="Polygon", append=True, **write)
    return path


def texts(app: Any) -> str:
    """What a page that was drawn without a browser says."""
    kinds = ("title", "subheader", "markdown", "caption", "error", "warning", "info", "success", "code")
    return "\n".join(str(one.value) for kind in kinds for one in getattr(app, kind))
