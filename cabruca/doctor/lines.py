"""What doctor says: one line a question, each ok, a warning, or an error, with a remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Line:
    """One answer.

    Attributes:
        topic: what was asked, such as `operator nms`. level: `error` means that training cannot work.
        text: what was found. remedy: what to do, empty where all is well.
    """

    topic: str
    level: Level
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = {"ok": "OK     ", "warning": "WARNING", "error": "ERROR  "}[self.level]
        return f"{mark} {self.topic}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Report:
    """All lines, in the order that they were asked in."""

    lines: tuple[Line, ...]

    @property
    def ok(self) -> bool:
        """Whether training can work: warnings are allowed."""
        return all(line.level != "error" for line in self.lines)

    def count(self, level: Level) -> int:
        return sum(line.level == level for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers: `{ok, errors, warnings, lines: [{topic, level, text, remedy}]}`."""
        return {
            "ok": self.ok,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "lines": [asdict(line) for line in self.lines],
        }


@dataclass(frozen=True)
class Said:
    """What a probe returns in its process: as a `Line`, without the topic."""

    text: str
    level: Level = "ok"
    remedy: str = ""
