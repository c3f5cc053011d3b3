"""Who looks on while a map is made, and may stop it."""

from __future__ import annotations

from typing import Protocol

from cabruca.predict.picture import Picture


class Watcher(Protocol):
    """Who looks on."""

    def say(self, line: str) -> None:
        """Something a person should know."""
        ...

    def progress(self, picture: Picture, done_px: int, crowns: int) -> None:
        """Grid px of `picture` that are done, and its crowns so far."""
        ...

    def stop_asked(self) -> bool:
        """Whether to save and stop; asked after every batch."""
        ...


class Silent:
    """Nobody looks on."""

    def say(self, line: str) -> None:
        pass

    def progress(self, picture: Picture, done_px: int, crowns: int) -> None:
        pass

    def stop_asked(self) -> bool:
        return False
