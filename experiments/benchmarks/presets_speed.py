"""The predecessor's speed table, measured: time an epoch, images a second and peak memory of both presets, here.

Each preset trains on windows of its own tile size, batch size, accumulation and precision, cut from drawn plots of
cabruca (`cabruca data synth`), through the same train function, loaders and optimizer as a real run. Each preset runs
in its own process, because the peak of memory is the process's. The first optimizer steps warm up and are not counted.
An epoch's time is the number of pictures divided by images a second; validation is left out. The networks are those of
the presets, frozen batch norm included, without their pretrained weights, so that nothing is downloaded.

    python experiments/benchmarks/presets_speed.py [--pictures 1000] [--steps 10] [--side 1024] [--device cuda ...]
        [--set KEY=VALUE ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
PRESETS = {"Standard": "training_config.yaml", "Light": "training_config_light.yaml"}
DEVICES = ("cpu", "cuda", "mps")
WARM_UP = 2


@dataclass(frozen=True)
class Row:
    """What a preset costs on a device; seconds an optimizer step are the median."""

    preset: str
    device: str
    tile_px: int
    batch: int
    effective_batch: int
    precision: str
    parameters_m: float
    step_s: float
    images_per_s: float
    wait_share: float
    peak_mb: float


def measure(preset: str, device: str, steps: int, side: int, changes: dict[str, object]) -> Row:
    """Train `WARM_UP + steps` optimizer steps of a preset on a drawn plot of `side` px."""
    sys.path.insert(0, str(ROOT))
    from torch import nn

    from cabruca.config.load import load_config
    from cabruca.data.synthetic import draw_plot
    from cabruca.dry_run import OneStep
    from cabruca.model.build import build_model
    from cabruca.run import make_runtime
    from cabruca.task import CabrucaTask
    from cabruca.train.loop import train
    from cabruca.train.protocols import BaseCallback, Record, RunInfo, Save, State, StopTraining, TrainResult

    class Watch(BaseCallback):
        """Reporter and callback: keeps times and facts, writes nothing, ends before the validation."""

        def __init__(self) -> None:
            self.records: list[Record] = []
            self.info: RunInfo | None = None

        def on_start(self, info: RunInfo) -> None:
            self.info = info

        def resume(self) -> State | None:
            return None

        def heartbeat(self, record: Record) -> Literal["go", "save", "stop"]:
            self.records.append(record)
            return "stop" if record.step == WARM_UP + steps else "go"

        def save(self, record: Record, save: Save) -> None:
            raise StopTraining("measured")

        report = save

        def finish(self, result: TrainResult | None, error: BaseException | None) -> None: ...

    class Unweighted(CabrucaTask):
        def build_model(self) -> nn.Module:
            return build_model(self.config, self.spec, weights=False)

    with tempfile.TemporaryDirectory() as folder:
        plot = draw_plot(Path(folder), size_px=side, gsd_m=0.1, seed=0)
        data = {
            "device": device,
            "data.train_dir": str(plot.images_dir),
            "data.val_dir": str(plot.images_dir),
            "data.train_annotations": str(plot.train_annotations),
            "data.val_annotations": str(plot.val_annotations),
            "training.log_interval": 1,
            "training.num_epochs": 1,
        }
        config = load_config(ROOT / "configs" / PRESETS[preset], {**data, **changes})
        accumulation = config.training.gradient_accumulation_steps
        effective = config.data.batch_size * accumulation
        windows = (WARM_UP + steps) * effective
        config = config.model_copy(update={"data": config.data.model_copy(update={"windows_per_epoch": windows})})
        watch = Watch()
        task = OneStep(Unweighted(config), windows)
        train(config, task, runtime=make_runtime(config), reporter=watch, callbacks=[watch])
    assert watch.info is not None
    counted = [record.metrics for record in watch.records[WARM_UP:]]
    step_s = statistics.median(effective / m["time/images_per_s"] for m in counted)
    return Row(
        preset=preset,
        device=device,
        tile_px=config.data.tile_size,
        batch=config.data.batch_size,
        effective_batch=effective,
        precision=watch.info.precision,
        parameters_m=watch.info.parameters / 1e6,
        step_s=step_s,
        images_per_s=effective / step_s,
        wait_share=statistics.mean(m.get("time/data_wait_share", float("nan")) for m in counted),
        peak_mb=peak_mb(device),
    )


def peak_mb(device: str) -> float:
    """Of this process; on CUDA of the tensors on the device."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return own / (2**20 if sys.platform == "darwin" else 1024)


def in_a_process(preset: str, device: str, arguments: argparse.Namespace) -> Row:
    command = [sys.executable, __file__, "--steps", str(arguments.steps), "--side", str(arguments.side)]
    command += [word for text in arguments.set for word in ("--set", text)] + ["--only", preset, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{preset} on {device} failed:\n{done.stderr}")
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def available(device: str) -> bool:
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return there[device]


def table(rows: Sequence[Row | tuple[str, str]], pictures: int) -> str:
    """Markdown; a pair (preset, device) is a row that was not run."""
    lines = [
        f"| preset | device | tile, px | batch | precision | s a step | images/s | epoch of {pictures} | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if isinstance(row, Row):
            epoch_s = pictures / row.images_per_s
            batch = f"{row.batch} x {row.effective_batch // row.batch}"
            lines.append(
                f"| {row.preset} | {row.device} | {row.tile_px} | {batch} | {row.precision} | {row.step_s:.2f} | "
                f"{row.images_per_s:.2f} | {epoch_s / 60:.1f} min | {row.peak_mb / 1024:.1f} GB |"
            )
        else:
            lines.append(f"| {row[0]} | {row[1]} |" + " not run |" * 7)
    return "\n".join(lines)


def machine() -> str:
    """GPU where there is one, processor, cores this process may use, versions."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{cpu}, {cores} cores; torch {torch.__version__}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1000, help="windows in the epoch that is told")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps that are measured")
    parser.add_argument("--side", type=int, default=1024, help="px, side of the drawn plot")
    parser.add_argument("--device", action="append", choices=DEVICES, help="measure these alone; default: all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a preset")
    parser.add_argument("--json", metavar="FILE", help="write the rows as well")
    parser.add_argument("--only", nargs=2, metavar=("PRESET", "DEVICE"), help="one row, as JSON, in this process")
    given = parser.parse_args()
    if given.only:
        sys.path.insert(0, str(ROOT))
        from cabruca.cli.options import read_assignments

        row = measure(*given.only, given.steps, given.side, read_assignments(given.set))
        print(json.dumps(asdict(row)))
        return
    rows: list[Row | tuple[str, str]] = [
        in_a_process(preset, device, given) if available(device) else (preset, device)
        for preset in PRESETS
        for device in given.device or DEVICES
    ]
    print(f"{machine()}; measured, drawn plots\n\n{table(rows, given.pictures)}")
    if given.json:
        measured = [asdict(row) for row in rows if isinstance(row, Row)]
        Path(given.json).write_text(json.dumps({"machine": machine(), "rows": measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
