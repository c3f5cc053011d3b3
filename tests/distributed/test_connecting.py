"""Connecting to a cluster that is there: what is tried again, and what is said of one that refuses."""

from __future__ import annotations

from typing import Any

import pytest

from cabruca.distributed.cluster import ATTEMPTS, _connect, _refusal

CRASHED = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 772, in Datapath
RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err for detailed logs.
"""


class FakeRay:
    """Fails as often as it has errors."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.asked = list(errors), 0

    def init(self, **given: Any) -> None:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)


def test_a_client_s_server_that_crashes_as_it_starts_is_started_again() -> None:
    ray = FakeRay(*[ConnectionAbortedError(CRASHED)] * (ATTEMPTS - 1))
    _connect(ray, "ray://127.0.0.1:10001", dashboard=False)
    assert ray.asked == ATTEMPTS


def test_not_for_ever() -> None:
    ray = FakeRay(*[ConnectionAbortedError(CRASHED)] * ATTEMPTS)
    with pytest.raises(ConnectionAbortedError):
        _connect(ray, "ray://127.0.0.1:10001", dashboard=False)
    assert ray.asked == ATTEMPTS


def test_a_cluster_that_is_not_there_is_asked_once() -> None:
    ray = FakeRay(ConnectionError("Could not find any running Ray instance."))
    with pytest.raises(ConnectionError):
        _connect(ray, "127.0.0.1:6379", dashboard=False)
    assert ray.asked == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            CRASHED,
            "RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err for detailed logs.",
        ),
        ("ray client connection timeout\n", "ray client connection timeout"),
        ("", "ConnectionError"),
    ],
)
def test_the_reason_is_the_line_that_says_it(error: str, reason: str) -> None:
    said = _refusal("ray://127.0.0.1:10001", ConnectionError(error))
    assert said.startswith(f"there is no Ray cluster at ray://127.0.0.1:10001 ({reason}); start one with")
