"""Runs probes inside a child process: `python -m cabruca.doctor.child ANSWERS JOBS`.

Before and after each probe a line of JSON is appended to the file ANSWERS, so that the parent knows which one crashed
or hangs; stdout and stderr are left to the libraries. A probe is `module:function`, called with one text, and returns
a `Said`.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any


def run(answers: Path, jobs: list[dict[str, str]]) -> None:
    """Run `jobs`, `[{probe, argument}]`, one after the other."""
    for number, job in enumerate(jobs):
        _append(answers, {"number": number, "began": True})
        try:
            module, function = job["probe"].split(":")
            said = asdict(getattr(importlib.import_module(module), function)(job["argument"]))
        except Exception as error:
            traceback.print_exc()
            text = next(iter(str(error).strip().splitlines()), "")
            said = {"failed": f"{type(error).__name__}: {text}"[:300].removesuffix(": ")}
        _append(answers, {"number": number, **said})


def _append(answers: Path, row: dict[str, Any]) -> None:
    with answers.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    run(Path(sys.argv[1]), json.loads(sys.argv[2]))
