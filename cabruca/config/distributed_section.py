"""The section `distributed`: how many workers, where, and what happens when one is lost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cabruca.config.base import Section

Workers = PositiveInt | Literal["auto"] | tuple[PositiveInt, PositiveInt]


class DistributedConfig(Section):
    num_workers: Workers = 1  # processes that train together; auto: the visible GPUs; [least, most]: elastic
    address: str | None = None  # Ray cluster: auto, host:port, ray://..., local: our own; None: RAY_ADDRESS, else local
    use_gpu: bool | Literal["auto"] = "auto"  # auto: as `device` says
    resources_per_worker: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)  # e.g. CPU: 4
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"  # of workers over nodes
    max_failures: NonNegativeInt = 3  # times that lost workers are started again
    storage_path: str | None = None  # run folders are copied there too (s3://, gs://, NFS); None: all see output_dir
    elastic_check_s: PositiveFloat = 60.0  # [least, most]: seconds between looks whether more workers fit
    start_timeout_s: PositiveFloat = 60.0  # seconds that workers may take to start; tried up to four times
    dashboard: bool = True  # Ray's dashboard, for a cluster of our own on this machine

    @model_validator(mode="after")
    def _check(self) -> DistributedConfig:
        if isinstance(self.num_workers, tuple) and self.num_workers[0] > self.num_workers[1]:
            least, most = self.num_workers
            raise ValueError(f"num_workers begins with {least} and ends with {most}; write [{most}, {least}]")
        return self
