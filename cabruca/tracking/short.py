"""Numbers and lengths of time in few characters, for columns."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """`45s`, `12m`, `3h05`, `2d04h`: at most six characters."""
    if not math.isfinite(seconds):
        return "-"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 1:
        return f"{int(seconds)}s"
    if hours < 1:
        return f"{minutes}m{int(seconds % 60):02d}"
    return f"{hours}h{minutes % 60:02d}" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"


def short_number(value: float | None, digits: int = 4) -> str:
    """At most `digits` significant digits and seven characters."""
    if value is None or not math.isfinite(value):
        return "-"
    texts = (f"{value:.{n}g}" for n in range(digits, 0, -1))
    return next((text for text in texts if len(text) <= 7), f"{value:.0e}")
