"""Pictures of earlier validations: predictions/ holds the newest alone, tensorboard/ has kept them all.

Read event by event, without TensorBoard's server; what stands in the files is data, nothing is executed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PREFIX = "val/"
"""In front of the names of validation pictures."""

LARGEST = 500_000_000
"""Bytes of event files that are read; where there are more, the newest pictures in predictions/ have to do."""


def steps_with_pictures(folder: Path) -> list[int]:
    """Optimizer steps at which validations have left pictures, in order; none where there is no tensorboard/."""
    return sorted({step for step, _, _ in _pictures(folder)})


def pictures_at(folder: Path, step: int) -> dict[str, bytes]:
    """Name -> PNG of the pictures of that step; of a step that was done twice, after a resume, the later ones."""
    return {name: content for at, name, content in _pictures(folder) if at == step}


def event_files(folder: Path) -> list[Path]:
    """The run's event files, in order of their time."""
    found = [path for path in folder.glob("events.out.tfevents.*") if path.is_file() and not path.is_symlink()]
    return sorted(found) if sum(path.stat().st_size for path in found) <= LARGEST else []


def _pictures(folder: Path) -> Iterator[tuple[int, str, bytes]]:
    files = event_files(folder)
    if not files:
        return
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.util import tb_logging

    tb_logging.get_logger().setLevel("ERROR")  # a file that is being written ends in half an event
    for path in files:
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag.startswith(PREFIX) and value.HasField("image"):
                    yield int(event.step), value.tag.removeprefix(PREFIX), value.image.encoded_image_string
