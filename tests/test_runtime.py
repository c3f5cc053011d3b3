"""Which device, how many threads: tables, with a made-up machine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cabruca.errors import DeviceError
from cabruca.runtime import available_cores, choose_device, thread_budget


@dataclass
class Machine:
    """A made-up `DeviceProbe`."""

    has_cuda: bool = False
    has_mps: bool = False

    def cuda(self) -> bool:
        return self.has_cuda

    def mps(self) -> bool:
        return self.has_mps

    def bf16(self, device: str) -> bool:
        return False

    def mps_autocast(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("machine", "chosen"),
    [
        (Machine(has_cuda=True, has_mps=True), "cuda"),
        (Machine(has_cuda=True), "cuda"),
        (Machine(has_mps=True), "mps"),
        (Machine(), "cpu"),
    ],
)
def test_auto_takes_cuda_then_mps_then_cpu(machine: Machine, chosen: str) -> None:
    assert choose_device("auto", machine) == chosen
    assert choose_device(chosen, machine) == chosen
    assert choose_device("cpu", machine) == "cpu"


@pytest.mark.parametrize(
    ("asked", "machine", "found"),
    [
        ("cuda", Machine(has_mps=True), "mps, cpu"),
        ("mps", Machine(has_cuda=True), "cuda, cpu"),
        ("cuda", Machine(), "cpu"),
    ],
)
def test_a_device_that_is_not_there_is_an_error_that_says_what_is(asked: str, machine: Machine, found: str) -> None:
    with pytest.raises(DeviceError, match=rf"'{asked}' was asked for .*\(found: {found}\); use --device auto"):
        choose_device(asked, machine)


def test_an_unknown_device_lists_the_known() -> None:
    with pytest.raises(DeviceError, match="'gpu' is not one of auto, cpu, cuda, mps"):
        choose_device("gpu", Machine(has_cuda=True))


@pytest.mark.parametrize(
    ("wanted", "cores", "compute", "loaders"),
    [
        (None, 1, 1, 0),
        (None, 2, 2, 0),
        (None, 3, 3, 0),
        (None, 4, 3, 1),
        (None, 16, 12, 4),
        (0, 8, 8, 0),
        (1, 1, 1, 0),
        (1, 2, 1, 1),
        (3, 8, 5, 3),
        (8, 8, 1, 7),
        (99, 4, 1, 3),
    ],
)
def test_threads_and_loaders_share_the_cores(wanted: int | None, cores: int, compute: int, loaders: int) -> None:
    budget = thread_budget(wanted, cores)
    assert (budget.compute, budget.loaders) == (compute, loaders)
    assert budget.compute + budget.loaders <= cores


def test_cores_are_never_more_than_omp_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    for limit, cores in (("", 6), ("2", 2), ("99", 6), ("0", 6), ("many", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert available_cores() == cores
