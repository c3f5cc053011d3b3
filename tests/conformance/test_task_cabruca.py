"""CabrucaTask keeps the rules of the Task protocol, with masks and with boxes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_task import check_task
from drawn_farm import farm_config, write_farm

from cabruca.task import CabrucaTask


@pytest.mark.parametrize("boxes_only", [False, True])
def test_cabruca_task_conforms(tmp_path: Path, boxes_only: bool) -> None:
    farm = write_farm(tmp_path, pictures=2, boxes_only=boxes_only)
    check_task(lambda: CabrucaTask(farm_config(farm, tmp_path)))
