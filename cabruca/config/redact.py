"""Secrets stay out of everything that is written: config.yaml, environment.json, trackers, checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_SECRET_KEY = re.compile(r"token|passw(or)?d|passphrase|secret|credential|api[_-]?key|access[_-]?key", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):[^\s/]*@")
_QUERY_SECRET = re.compile(r"([?&;][^=&\s]*(?:token|password|secret|api_?key)[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def redact(values: Any) -> Any:
    """A copy of plain containers with secrets replaced by `***`.

    A secret is the value of a key that looks like a token, password, secret, credential or API key, the
    password of a `user:password@` in a URL, and such a key in a URL's query. Truth values and None under such a
    key stay: they say whether there is a secret.
    """
    if isinstance(values, Mapping):
        return {key: _hide(value) if _SECRET_KEY.search(str(key)) else redact(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [redact(value) for value in values]
    if isinstance(values, str):
        return _QUERY_SECRET.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1:{MASK}@", values))
    return values


def _hide(value: Any) -> Any:
    return value if value is None or isinstance(value, bool) else MASK
