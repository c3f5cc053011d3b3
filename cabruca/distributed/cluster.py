"""A Ray cluster to work on: one that is there, or one of our own on this machine, closed and behind a token."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.commands import command
from cabruca.config.schema import Config
from cabruca.errors import RunError
from cabruca.train.protocols import NOTICE

_log = logging.getLogger("cabruca.distributed")

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # runs can be read from the dashboard's API
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # a report waits for the controller's next look
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a configuration are relative to where the command was given
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
"""Environment variables, set unless the user has set them."""

CLOSED = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0, every port of a cluster of our own is bound to 127.0.0.1, on Linux too."""

ASKED_AT = "RAY_API_SERVER_ADDRESS"
"""Where Ray asks for the state of a cluster."""

ATTEMPTS = 3
"""Times that Ray's client is asked to connect: the process that the cluster forks for it sometimes crashes in gRPC."""

CRASHED = "Starting Ray client server failed"
"""What the cluster says of that."""

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Where Ray looks for a token, before ~/.ray/auth_token."""


@dataclass(frozen=True)
class Cluster:
    """What a run needs to know of it.

    Attributes:
        address: None for one of our own. dashboard: its address with http://, None without one.
    """

    address: str | None
    dashboard: str | None


def address_of(config: Config) -> str | None:
    """Of the Ray cluster to use: configured, else RAY_ADDRESS; None: one of our own, on this machine."""
    address = config.distributed.address or os.environ.get("RAY_ADDRESS") or None
    return None if address == "local" else address


@contextlib.contextmanager
def cluster_for(config: Config) -> Iterator[Cluster]:
    """Connect, or start a cluster of our own on 127.0.0.1; what was started is shut down at the end.

    Raises:
        RunError: the cluster does not answer or refuses the token; Ray cannot start here.
    """
    settings, address = config.distributed, address_of(config)
    set_environment(config)
    ray = import_ray()
    logging.getLogger("ray").setLevel(logging.ERROR)
    inside = ray.is_initialized()
    if not inside:
        try:
            _connect(ray, address, dashboard=settings.dashboard)
        except Exception as error:
            raise RunError(_refusal(address, error)) from error
    try:
        with _asked_here(ray):
            yield _describe(ray, address)
    finally:
        if not inside:
            ray.shutdown()


def set_environment(config: Config) -> None:
    """What Ray reads of the environment. Before Ray is imported: it looks at some of it then, and never again."""
    settings, address = config.distributed, address_of(config)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address is None:
        os.environ.setdefault(CLOSED, "0")
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gradients stay on this machine too
    if address is None or _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # dashboard and every connection ask for it
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(settings.start_timeout_s)


def import_ray() -> Any:
    """Ray, or what to install.

    Raises:
        RunError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise RunError("many workers need Ray: pip install 'ray[default,train,tune]'") from error
    return ray


def _has_token() -> bool:
    return any(os.environ.get(name) for name in TOKENS) or (Path.home() / ".ray" / "auth_token").is_file()


def _connect(ray: Any, address: str | None, *, dashboard: bool) -> None:
    common = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        _connect_to(ray, address, common)
        return
    local = "127.0.0.1"
    _read_environment_again(ray)
    ray.init(address="local", include_dashboard=dashboard, dashboard_host=local, _node_ip_address=local, **common)


def _connect_to(ray: Any, address: str, common: dict[str, Any]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init(address=address, **common)
        except ConnectionError as error:
            if CRASHED not in str(error) or attempt == ATTEMPTS:
                raise
            _log.warning("the cluster could not start a server for this client; asking again")
        else:
            return


def _read_environment_again(ray: Any) -> None:
    """Ray looks at who may connect once, when it is imported, and a program may have imported it before us."""
    raylet = importlib.import_module("ray._raylet")
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(CLOSED, "1").lower() not in ("0", "false")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _refusal(address: str | None, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = lines[-1] if lines[0].endswith(":") else lines[0]  # a heading, and the cluster's traceback below it
    if address is None:
        return f"Ray cannot start on this machine ({reason}); see `cabruca doctor`"
    if "token" in str(error).lower() or "auth" in str(error).lower():
        return (
            f"the Ray cluster at {address} refuses us ({reason}); put its token into RAY_AUTH_TOKEN, or its file into "
            "RAY_AUTH_TOKEN_PATH"
        )
    return f"there is no Ray cluster at {address} ({reason}); start one with `ray start --head`, or leave --address out"


@contextlib.contextmanager
def _asked_here(ray: Any) -> Iterator[None]:
    """Whoever asks for the state of "the cluster" asks the one we are connected to.

    Ray Train's watchman over a run's resources does; left to himself, he looks into a file in which the machine's last
    `ray start` wrote its address. Where that cluster is gone he waits for its answer, and every run ends half a minute
    late; where it is alive it knows nothing of our run, and he goes home.
    """
    found = None
    if not ray.util.client.ray.is_connected():
        kv = importlib.import_module("ray.experimental.internal_kv")
        found = kv._internal_kv_get(b"dashboard", namespace=b"dashboard")
    before = os.environ.get(ASKED_AT)
    if found:
        os.environ[ASKED_AT] = f"http://{found.decode()}"
    try:
        yield
    finally:
        if found and before is None:
            os.environ.pop(ASKED_AT, None)
        elif found and before is not None:
            os.environ[ASKED_AT] = before


def _describe(ray: Any, address: str | None) -> Cluster:
    url = getattr(ray._private.worker.global_worker.node, "webui_url", None)  # of a client: none
    dashboard = f"http://{url}" if url else None
    if dashboard:
        how = command("get-auth-token", program="ray")
        _log.info("Ray dashboard: %s (it asks for a token, which this prints: %s)", dashboard, how, extra=NOTICE)
    return Cluster(address, dashboard)


def free_resources(ray: Any) -> list[dict[str, float]]:
    """The free resources of every node that is alive."""
    if ray.util.client.ray.is_connected():  # a client has no state of its own: a node of the cluster looks
        found: list[dict[str, float]] = ray.get(ray.remote(num_cpus=0)(_free).remote())
        return found
    return _free()


def _free() -> list[dict[str, float]]:
    import ray

    untyped: Any = ray
    alive = {node["NodeID"] for node in untyped.nodes() if node["Alive"]}
    free = untyped._private.state.available_resources_per_node()
    return [dict(resources) for node, resources in free.items() if node in alive]


def all_resources(ray: Any) -> list[dict[str, float]]:
    """The resources of every node that is alive, free or not."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
