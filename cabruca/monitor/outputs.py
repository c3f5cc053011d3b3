"""Which folder is looked at: the command says it to the pages in an environment variable."""

from __future__ import annotations

import os
from pathlib import Path

OUTPUTS = "CABRUCA_MONITOR_OUTPUTS"


def outputs_folder() -> str:
    """The folder that the command was given; without one `outputs` here."""
    return os.environ.get(OUTPUTS) or str(Path("outputs").absolute())
