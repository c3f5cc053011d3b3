"""Probes that misbehave, run by doctor's child process."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

from cabruca.doctor.lines import Said


def fine(argument: str) -> Said:
    print("noise on stdout")
    return Said(f"heard {argument}")


def slow_but_fine(argument: str) -> Said:
    time.sleep(float(argument))
    return Said("done")


def odd(argument: str) -> Said:
    return Said("odd", "warning", f"mend {argument}")


def raises(argument: str) -> Said:
    raise ValueError(f"no {argument}\nsecond line")


def segfaults(argument: str) -> Said:
    ctypes.string_at(0)
    return Said("alive")


def exits(argument: str) -> Said:
    print("library: cannot go on", file=sys.stderr, flush=True)
    os._exit(7)


def hangs(argument: str) -> Said:
    """Starts a helper that hangs too; its process id is written to the file `argument`."""
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if argument:
        Path(argument).write_text(str(helper.pid))
    time.sleep(600)
    return Said("awake")


def leaves_a_thread(argument: str) -> Said:
    import threading

    threading.Thread(target=time.sleep, args=(600,)).start()
    return Said("left")
