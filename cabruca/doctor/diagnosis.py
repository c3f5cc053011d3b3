"""All questions of `cabruca doctor`, and how they are put: what may crash or hang is asked in a child process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cabruca.config.schema import Config
from cabruca.doctor.addresses import address_lines
from cabruca.doctor.asking import Job, ask
from cabruca.doctor.lines import Level, Report
from cabruca.doctor.machine import ANOTHER, machine_lines
from cabruca.doctor.versions import version_lines

_OPERATORS = "cabruca.doctor.operators"
_LIBRARIES = "cabruca.doctor.libraries"
_DISK = "cabruca.doctor.machine:disk"
_REINSTALL = "install torch and torchvision anew, both from the same place, or use --device cpu"
_PLAIN = "runs go on without it"

OPERATORS: tuple[tuple[str, str, Level, str], ...] = (
    ("convolution", "convolution", "error", _REINSTALL),
    ("transposed convolution", "transposed_convolution", "error", _REINSTALL),
    ("group norm", "group_norm", "error", _REINSTALL),
    ("bilinear upsampling", "upsampling", "error", _REINSTALL),
    ("nms", "nms", "error", _REINSTALL),
    ("roi_align", "roi", "error", _REINSTALL),
    ("optimizer step", "optimizer_step", "error", _REINSTALL),
    ("depthwise convolution in bf16", "depthwise_bf16", "warning", "leave training.mixed_precision off"),
)
"""Name, probe, what it means when it fails, remedy."""


def diagnose(config: Config) -> Report:
    """Ask everything; takes a quarter of a minute. A probe that crashes or hangs is a line like any other."""
    device = _device(config)
    groups = (_compute_jobs(device), _library_jobs(config))
    with ThreadPoolExecutor(len(groups)) as pool:
        compute, libraries = pool.map(ask, groups)
    # alone: beside another process the clock would tell of that one
    timed = ask(_timed_jobs(device))
    machine = (*machine_lines(), *ask([Job("disk", _DISK, config.output_dir, 20.0, "error", ANOTHER)]))
    return Report((*version_lines(), *compute, *timed, *machine, *libraries, *address_lines(config)))


def _device(config: Config) -> str:
    """The device that probes run on; `cpu` where even that question has no answer (the next line says so)."""
    if config.device != "auto":
        return config.device
    (line,) = ask([Job("device", f"{_LIBRARIES}:auto_device")])
    return line.text if line.text in ("cuda", "mps") else "cpu"


def _compute_jobs(device: str) -> Sequence[Job]:
    first = Job("devices", f"{_LIBRARIES}:devices", remedy="install torch anew")
    rest = [
        Job(f"operator {name}", f"{_OPERATORS}:{probe}", device, 60.0, level, remedy)
        for name, probe, level, remedy in OPERATORS
    ]
    return [first, Job("cores", f"{_LIBRARIES}:cores", if_broken="warning"), *rest]


def _timed_jobs(device: str) -> Sequence[Job]:
    compiler = "runs go on without training.compile; install a C++ compiler (apt install g++), or leave it off"
    return [
        Job("bf16", f"{_OPERATORS}:bf16_speed", device, 60.0, "warning", "leave training.mixed_precision off"),
        Job("torch.compile", f"{_OPERATORS}:compiling", device, 180.0, "warning", compiler),
    ]


def _library_jobs(config: Config) -> Sequence[Job]:
    tracking = config.tracking
    wanted = {"tensorboard": tracking.tensorboard, "mlflow": tracking.mlflow, "wandb": tracking.wandb}
    trackers = [
        Job(f"tracker {name}", f"{_LIBRARIES}:importable", name, 90.0, "warning", f"pip install -U {name}; {_PLAIN}")
        for name in sorted(wanted, key=lambda name: not wanted[name])
    ]
    return [
        Job("pictures", f"{_LIBRARIES}:gdal", remedy="pip install --force-reinstall rasterio (its wheel brings GDAL)"),
        Job("mAP", f"{_LIBRARIES}:importable", "faster_coco_eval", remedy="pip install -U faster-coco-eval"),
        *trackers,
        Job("ray", f"{_LIBRARIES}:optional", "ray", 90.0, "warning", f"pip install -U 'ray[default]'; {_PLAIN}"),
        Job("gpu readings", f"{_LIBRARIES}:optional", "pynvml", 30.0, "warning", _PLAIN),
    ]
