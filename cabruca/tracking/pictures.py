"""Validation pictures as files: predictions/val_<name>.png, those of the newest validation."""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image

from cabruca.config.schema import Config
from cabruca.tracking.files import write_atomic
from cabruca.tracking.run_dir import RunDir
from cabruca.train.protocols import BaseCallback, Record


class PictureWriter(BaseCallback):
    """Writes `Record.pictures`; a later validation replaces the files of the same name."""

    def __init__(self, run_dir: RunDir, config: Config) -> None:
        self._folder = run_dir.predictions

    def on_validation(self, record: Record) -> None:
        for picture in record.pictures:
            data = io.BytesIO()
            Image.fromarray(picture.rgb).save(data, format="png")
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._folder / f"val_{_file_name(picture.name)}.png", data.getvalue(), durable=False)


def plots_of(run_dir: RunDir) -> dict[str, Path]:
    """`plots/<stem>` -> PNG of the run, those that are there."""
    return {f"plots/{file.stem}": file for file in sorted(run_dir.plots.glob("*.png"))}


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).removeprefix("val_") or "picture"
