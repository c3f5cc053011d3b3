"""Commands for people to copy: written so that they work in a fresh shell, where nothing is activated."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

PROGRAM = "cabruca"


def command(*words: str | Path, program: str = PROGRAM) -> str:
    """`program` with its arguments, quoted for a shell.

    The program's bare name where the shell would find it and it is this installation's; else the path of the script
    beside this Python; else `python -m program` of this Python.
    """
    return shlex.join([*_program(program), *map(str, words)])


def _program(name: str) -> list[str]:
    own = Path(sys.executable).parent / (f"{name}.exe" if sys.platform == "win32" else name)
    found = shutil.which(name)
    if own.is_file():
        return [name] if found is not None and _same(found, own) else [str(own)]
    return [name] if found is not None and name != PROGRAM else [sys.executable, "-m", name]


def _same(found: str, own: Path) -> bool:
    return Path(found).resolve() == own.resolve()
