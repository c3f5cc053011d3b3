"""Memory runs out under predict: one line with flags that predict has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drawn import SPEC, drawn_sample
from drawn_farm import farm_config

from cabruca.errors import OutOfMemory
from cabruca.evaluation import Trained
from cabruca.model.build import build_model
from cabruca.model.segmenter import Segmenter
from cabruca.predict.network import TrainedNetwork
from cabruca.runtime import Runtime
from cabruca.structures import collate


@pytest.fixture
def hungry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainedNetwork:
    """A network whose every pass fails."""
    config = farm_config(tmp_path, tmp_path, {"model.pretrained": "none"})
    network = TrainedNetwork(Trained(build_model(config, SPEC), config, SPEC, None), Runtime.single())

    def forward(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of 79 GiB")

    monkeypatch.setattr(Segmenter, "forward", forward)
    return network


@pytest.mark.parametrize(
    ("windows", "advice"),
    [(4, "give --batch-size 2 (with --resume it goes on), or give --tile-size 64"), (1, "give --tile-size 64")],
)
def test_the_advice_is_of_flags_that_predict_has(hungry: TrainedNetwork, windows: int, advice: str) -> None:
    batch = collate([drawn_sample([(64.0, 64.0, 9.0, 1)], size=128, index=k) for k in range(windows)])
    with pytest.raises(OutOfMemory) as raised:
        hungry(batch)
    size = f"batch size {windows} x windows of 128 x 128 px"
    assert str(raised.value) == f"out of memory on cpu (CUDA out of memory): {size} does not fit; {advice}"


def test_other_errors_are_not_taken_for_it(hungry: TrainedNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: object, **__: object) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(Segmenter, "forward", forward)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        hungry(collate([drawn_sample([], size=128, index=0)]))
