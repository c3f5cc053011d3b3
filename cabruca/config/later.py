"""Accepted keys that do nothing yet, most of them from the predecessor's files -> where they come from."""

from __future__ import annotations

LATER = {
    "data.test_dir": "the reporting release (until then: cabruca evaluate --images)",
    "data.test_annotations": "the reporting release (until then: cabruca evaluate --annotations)",
    "testing.batch_size": "the reporting release",
    "testing.save_outputs": "the reporting release",
    "testing.generate_report": "the reporting release",
}
