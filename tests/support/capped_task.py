"""A study whose trials with large batches find a GPU with little memory; as a script: `capped_task.py study.yaml`."""

from __future__ import annotations

import sys

import torch
from torch import nn

from cabruca.task import CabrucaTask

ROOM_MB = 700
"""Weights, moments and batches of 2 small windows take much less; a batch of 48, much more."""


class CappedTask(CabrucaTask):
    """The real task; what a trial of large batches may take of the GPU is limited."""

    def build_model(self) -> nn.Module:
        total = torch.cuda.get_device_properties(0).total_memory
        share = ROOM_MB * 2**20 / total if self.config.data.batch_size > 8 else 1.0
        torch.cuda.set_per_process_memory_fraction(share)
        return super().build_model()


def _main() -> int:
    from capped_task import CappedTask as Named  # by its name, so that workers can import it

    from cabruca.config.study import load_study
    from cabruca.distributed.study import run_study
    from cabruca.tracking.study_dir import StudyDir

    study = load_study(sys.argv[1])
    return int(run_study(study, StudyDir.create(study), quiet=True, trial=Named).exit_code)


if __name__ == "__main__":
    sys.exit(_main())
