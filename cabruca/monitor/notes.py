"""notes.json of a run: tags and a note, which people give it. The one file that the monitor writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.errors import RunError
from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.run_dir import RunDir

LONGEST_NOTE, LONGEST_TAG, MOST_TAGS = 10_000, 40, 20


@dataclass(frozen=True)
class Notes:
    """What people say of a run."""

    tags: tuple[str, ...] = ()
    note: str = ""


def notes_file(run: RunDir) -> Path:
    """Where they lie."""
    return run.path / "notes.json"


def read_notes(path: Path) -> Notes:
    """What the file says; nothing where there is none that can be read."""
    found = _read(path)
    tags, note = found.get("tags"), found.get("note")
    kept = tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
    return Notes(kept, note if isinstance(note, str) else "")


def write_notes(run: RunDir, tags: Sequence[str], note: str) -> Notes:
    """Write both; what else another program keeps in the file stays.

    Raises:
        RunError: too long, no longer a run, a link, or the folder may not be written.
    """
    kept = tuple(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    long = [tag for tag in kept if len(tag) > LONGEST_TAG]
    if long or len(kept) > MOST_TAGS or len(note) > LONGEST_NOTE:
        what = f"tag '{long[0][:20]}...'" if long else "note" if len(note) > LONGEST_NOTE else f"{len(kept)} tags"
        raise RunError(
            f"{what}: at most {MOST_TAGS} tags of {LONGEST_TAG} characters and a note of {LONGEST_NOTE}; shorten it"
        )
    path = notes_file(run)
    if not run.holds_run or path.is_symlink():
        raise RunError(f"{path} is not written: no run is there any more, or it is a link; reload the page")
    try:
        write_atomic(path, to_json({**_read(path), "tags": list(kept), "note": note.strip()}, indent=1) + "\n")
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}); mend the permissions") from error
    return Notes(kept, note.strip())


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
