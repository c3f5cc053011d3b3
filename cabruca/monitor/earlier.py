"""Pictures of earlier validations: predictions/ holds the newest alone, tensorboard/ has kept them all.

Read event by event, without TensorBoard's server; what stands in the files is data, nothing is executed. A training
adds to its event files with every step, and reading them takes long: again only when there are other pictures.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cabruca.monitor.cache import stamp

PREFIX = "val/"
"""In front of the names of validation pictures."""

LARGEST = 500_000_000
"""Bytes of event files that are read; where there are more, the newest pictures in predictions/ have to do."""

SETTLED_S = 40.0
"""Seconds after which pictures in predictions/ stand in the event file too, which is flushed every 30 s."""


def pictures_stamp(folder: Path, newest: Sequence[Path]) -> object:
    """What tells whether the event files may hold other pictures than before: theirs are `newest`, or were.

    Not the size of the files, which grow with every scalar. Shortly after a validation its pictures may not have been
    flushed yet, so that the stamp is another once they must have been.
    """
    stamps = [stamp(path) for path in newest]
    changed_ns = max((known[1] for known in stamps if known is not None), default=0)
    settled = time.time() - changed_ns / 1e9 > SETTLED_S
    return tuple(event_files(folder)), tuple(stamps), settled


def steps_with_pictures(folder: Path) -> dict[int, list[Path]]:
    """Optimizer step of a validation, in order -> the event file of each of its pictures; none without tensorboard/."""
    found: dict[int, list[Path]] = {}
    for path in event_files(folder):
        for step, _, _ in _pictures(path):
            found.setdefault(step, []).append(path)
    return dict(sorted(found.items()))


def pictures_at(files: Sequence[Path], step: int) -> dict[str, bytes]:
    """Name -> PNG of the pictures of that step; of a step that was done twice, after a resume, the later ones.

    `files`, those that hold them, are read no further than to the pictures of a later step.
    """
    found: dict[str, bytes] = {}
    for path in dict.fromkeys(files):
        for at, name, content in _pictures(path):
            if at > step:
                break
            if at == step:
                found[name] = content
    return found


def event_files(folder: Path) -> list[Path]:
    """The run's event files, in order of their time; links are not followed."""
    if folder.is_symlink():
        return []
    found = [path for path in folder.glob("events.out.tfevents.*") if path.is_file() and not path.is_symlink()]
    return sorted(found) if sum(path.stat().st_size for path in found) <= LARGEST else []


def _pictures(path: Path) -> Iterator[tuple[int, str, bytes]]:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.util import tb_logging

    tb_logging.get_logger().setLevel("ERROR")  # a file that is being written ends in half an event
    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.tag.startswith(PREFIX) and value.HasField("image"):
                yield int(event.step), value.tag.removeprefix(PREFIX), value.image.encoded_image_string
