"""The exception tree.

::

    CabrucaError                 a person can mend it: one line, exit code 2, no traceback
    ├── ConfigError              a key or value of the configuration, a flag
    ├── DataError                an image, an annotation, a raster, a category
    ├── CheckpointError          a checkpoint that is missing, broken, or of another model
    ├── DeviceError              a device or precision that is not there
    ├── OutOfMemory              a step, a validation or a prediction that does not fit into memory
    └── RunError                 a run folder that is taken, or cannot be resumed
    TrainingDiverged             the numbers are not finite any more (exit code 1)

Every message says three things in one line: the value, the rule it breaks, the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CabrucaError(Exception):
    """Base of the errors that a user can mend; the command line prints it in one line and exits with 2."""


class ConfigError(CabrucaError):
    """A configuration key or value, or a command line flag, is not acceptable."""


class DataError(CabrucaError):
    """An image, raster, annotation file or category cannot be used."""


class CheckpointError(CabrucaError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class DeviceError(CabrucaError):
    """The device or precision asked for is not available here."""


class OutOfMemory(CabrucaError):
    """An optimizer step, a validation or windows of a prediction do not fit into memory; says which flags fit."""


class RunError(CabrucaError):
    """A run folder is taken, absent, or cannot be continued."""


class TrainingDiverged(Exception):
    """Too many optimizer steps in a row had non-finite gradients; names the batch."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is close to `word`, upper or lower case; None where none is."""
    folded = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` when a known word is close to `word`, else the empty string."""
    found = closest(word, known)
    return f"; did you mean '{found}'?" if found else ""
