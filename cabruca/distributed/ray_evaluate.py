"""`cabruca evaluate --workers N`: each worker measures a share of the windows; the numbers are those of one process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.config.load import config_from_dict
from cabruca.config.schema import DistributedConfig
from cabruca.distributed.cluster import cluster_for
from cabruca.distributed.group import muster, open_desk, run_group
from cabruca.distributed.worker import Place
from cabruca.errors import CheckpointError
from cabruca.runtime import Runtime

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class EvaluateJob:
    """What the driver sends to the workers. `arguments` are those of `evaluation.evaluate`, paths absolute."""

    place: Place
    desk: Any
    arguments: Mapping[str, Any]

    def run(self, runtime: Runtime) -> Numbers:
        """Measure this rank's share; all ranks know all numbers."""
        import ray

        from cabruca.evaluation import evaluate

        if runtime.is_main:
            attempt = ray.get(self.desk.began.remote())
            ray.get(self.desk.tell.remote("workers", runtime.world_size, attempt, 0, 0))
        return evaluate(**self.arguments, runtime=runtime)


def evaluate_on_workers(
    checkpoint: str | Path,
    images: str | Path,
    annotations: str | Path,
    *,
    distributed: DistributedConfig,
    device: str = "auto",
    **options: Any,
) -> Numbers:
    """Every metric of a checkpoint on a data set, the windows shared by workers.

    Args:
        distributed: how many workers, where. Others as `evaluation.evaluate`.

    Raises:
        CabrucaError: as there; workers that cannot be had.
    """
    path = Path(checkpoint)
    if not path.is_file():  # before seconds go into a cluster
        raise CheckpointError(f"checkpoint {path} is not there; give the path of a .pth file")
    config = config_from_dict({"device": device, "experiment_name": "evaluate"})
    config = config.model_copy(update={"distributed": distributed})
    given: dict[str, Any] = {"checkpoint": path, "images": images, "annotations": annotations, **options}
    for key in ("checkpoint", "images", "annotations", "pictures_dir", "plots_dir", "inventory"):
        if given.get(key) is not None:
            given[key] = str(Path(given[key]).absolute())
    with cluster_for(config), tempfile.TemporaryDirectory() as scratch:
        import ray

        team = muster(ray, config)
        place = Place(team.cpus, team.use_gpu, config.data.num_workers, str(Path.cwd()))
        job = EvaluateJob(place, open_desk(ray), given)
        storage = distributed.storage_path or scratch
        found, _ = run_group(job, team, config, hear=lambda *_: None, scratch=storage)
    numbers: Numbers = json.loads(json.dumps(found))
    return numbers
