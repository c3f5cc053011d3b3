"""report.html: what a study found, on one page that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cabruca.config.study import Study
    from cabruca.tracking.study_dir import StudyDir
    from cabruca.tracking.study_events import StudyState


def write_report(study: Study, study_dir: StudyDir, state: StudyState) -> Path:
    """Write the study's report.html and give its path back. Reads repeats.json where there is one."""
    raise NotImplementedError
