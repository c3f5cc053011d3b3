"""Accepted keys that do nothing yet, most of them from the predecessor's files -> where they come from."""

from __future__ import annotations

LATER = {
    "model.pretrained_checkpoint": "the transfer-learning release (until then: cabruca train --init-from)",
    "data.test_dir": "the reporting release (until then: cabruca evaluate --images)",
    "data.test_annotations": "the reporting release (until then: cabruca evaluate --annotations)",
    "training.profile": "the profiling release",
    "training.profile_batches": "the profiling release",
    "validation.calculate_agroforestry_metrics": "the agroforestry metrics release",
    "validation.plantation_data": "the agroforestry metrics release",
    "testing.batch_size": "the reporting release",
    "testing.save_outputs": "the reporting release",
    "testing.generate_report": "the reporting release",
}
