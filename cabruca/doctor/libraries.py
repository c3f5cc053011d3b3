"""Probes that run in a child process: libraries that may be absent, broken, or take the process with them."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from cabruca.doctor.lines import Said

DRIVER_FILE = Path("/proc/driver/nvidia/version")


def importable(name: str) -> Said:
    """A library that is imported, with its version."""
    module = importlib.import_module(name)
    if getattr(module, "__file__", None) is None:  # a folder of that name where the command was typed, no library
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return Said(f"{name} {getattr(module, '__version__', '')}".strip())


def optional(name: str) -> Said:
    """A library that training does without: its absence is no fault."""
    try:
        return importable(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return Said(f"{name} is not installed, and nothing here needs it", remedy=_PURPOSE.get(name, ""))


_PURPOSE = {
    "ray": "pip install 'ray[default,train,tune]' when you want several machines or a study of many runs",
    "pynvml": "pip install nvidia-ml-py when you want the utilisation of an NVIDIA GPU in the records",
}


def devices(_: str) -> Said:
    """What torch can compute on, and whether it overlooks a GPU."""
    import torch

    from cabruca.runtime import choose_device

    chosen = choose_device("auto")
    names = []
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        names.append(f"cuda:{i} {facts.name}, {facts.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        names.append("mps (Apple)")
    text = f"torch {torch.__version__} computes on {chosen} ({'; '.join(names) or 'no GPU'})"
    if not torch.cuda.is_available() and DRIVER_FILE.exists():
        return Said(
            f"{text}, but an NVIDIA driver is here",
            "warning",
            "install a torch built for CUDA (pytorch.org/get-started), or look why the GPU is hidden from this process",
        )
    return Said(text)


def auto_device(_: str) -> Said:
    """The device that `auto` means here."""
    from cabruca.runtime import choose_device

    return Said(choose_device("auto"))


def cores(_: str) -> Said:
    """Cores that this process may use, and how a training would divide them."""
    from cabruca.runtime import available_cores, thread_budget

    budget = thread_budget("auto")
    text = f"{available_cores()} for this process: {budget.compute} to compute, {budget.loaders} to load"
    limit = os.environ.get("OMP_NUM_THREADS")
    return Said(f"{text} (OMP_NUM_THREADS={limit})" if limit else text)


def gdal(_: str) -> Said:
    """GDAL has the drivers that pictures are opened with, and no other is ever asked."""
    from cabruca.data.drivers import gdal_version, missing_drivers

    missing = missing_drivers()
    if missing:
        raise RuntimeError(f"GDAL {gdal_version()} lacks the driver {', '.join(missing)}")
    return Said(f"GDAL {gdal_version()} opens GeoTIFF, PNG and JPEG, the only formats that are asked for")
