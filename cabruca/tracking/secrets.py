"""Secrets stay out of what is said: log lines, tracebacks, status messages, warnings of trackers.

`cabruca.config.redact` hides the secrets of a configuration by their keys. Here it is free text, in which an
exception of a library may have put an address with its password, or a key that it was given.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from cabruca.config.redact import MASK, redact

SHORTEST = 6
"""Values of fewer characters (`1`, `true`, `admin`) are words that a text may hold by chance."""

_SECRET_NAME = re.compile(r"token|passw|secret|credential|api_?key|access_?key", re.IGNORECASE)
_PLACE_NAME = re.compile(r"_(file|path|dir|folder|url|uri|name)$", re.IGNORECASE)


def hide(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` with `***` for passwords in addresses and for the values of environment variables that hold secrets.

    A variable holds a secret when its name says so (WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_PASSWORD;
    not GITHUB_TOKEN_FILE, which says where one is), or when its value is an address with a password.
    """
    for value in sorted(_secrets(environment), key=len, reverse=True):
        text = text.replace(value, MASK)
    hidden: str = redact(text)
    return hidden


def _secrets(environment: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and not _PLACE_NAME.search(name):
            found.add(value)
        if "@" in value and "://" in value:
            password = _password(value)
            found |= {password, unquote(password)}
    return {value for value in found if len(value) >= SHORTEST}


def _password(address: str) -> str:
    try:
        return urlsplit(address).password or ""
    except ValueError:  # not an address after all
        return ""


class HidingFormatter(logging.Formatter):
    """Formats a record, its traceback included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record))
