"""Two hosts on this machine: network namespaces with addresses, names and disks of their own, joined by a bridge.

Needs root and `ip`; nothing leaves the machine, and the machine's own network is not touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


def why_not() -> str | None:
    """Why two hosts cannot be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "ip (iproute2) is not installed"
    name = f"cabruca{os.getpid()}t"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces are not allowed here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@dataclass
class Host:
    """A host: its namespace, name and address; `hidden` folders are empty ones of its own there."""

    name: str
    namespace: str
    address: str
    environment: dict[str, str]
    hidden: list[Path] = field(default_factory=list)

    def start(self, *words: str, log: Path | None = None) -> subprocess.Popen[str]:
        """A process on this host."""
        steps = [f"hostname {self.name}", *(f"mount -t tmpfs none '{folder}'" for folder in self.hidden), 'exec "$@"']
        inside = ["unshare", "--uts", "--mount", "bash", "-ec", "; ".join(steps), "bash", *words]
        output = subprocess.PIPE if log is None else log.open("w")
        command = ["ip", "netns", "exec", self.namespace, *inside]
        return subprocess.Popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT, text=True)

    @property
    def link(self) -> str:
        return f"{self.namespace}h"


@contextlib.contextmanager
def two_hosts(token: str) -> Iterator[tuple[Host, Host]]:
    """`first` at 10.77.0.1 and `second` at 10.77.0.2, in a third namespace's bridge; no way to anywhere else."""
    base = f"cb{os.getpid() % 100000}"
    middle = f"{base}m"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", ROOT / "tests" / "support"])),
    }
    hosts = [Host(n, f"{base}{n[0]}", f"10.77.0.{i}", dict(environment)) for i, n in enumerate(("first", "second"), 1)]
    try:
        ip("netns", "add", middle)
        ip("-n", middle, "link", "add", "bridge", "type", "bridge")
        ip("-n", middle, "link", "set", "bridge", "up")
        for host in hosts:
            ip("netns", "add", host.namespace)
            ip("-n", host.namespace, "link", "set", "lo", "up")
            ip(
                "link",
                "add",
                host.link,
                "netns",
                middle,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                host.namespace,
            )
            ip("-n", middle, "link", "set", host.link, "master", "bridge", "up")
            ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.namespace, "link", "set", "eth0", "up")
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            _end_all(host.namespace)
        shutil.rmtree(f"/tmp/{hosts[0].namespace}", ignore_errors=True)
        for name in [*(host.namespace for host in hosts), middle]:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def set_link(host: Host, *, up: bool) -> None:
    """Pull the host's cable, or put it back: nothing is told to either side."""
    middle = f"{host.namespace[:-1]}m"
    ip("-n", middle, "link", "set", host.link, "up" if up else "down")


def start_ray(first: Host, second: Host, folder: Path, *, cpus: int) -> None:
    """A head on the first, a node on the second; returns when both are there."""
    script = [sys.executable, "-m", "ray.scripts.scripts"]
    common = ["--block", f"--num-cpus={cpus}", "--disable-usage-stats", "--object-store-memory=200000000"]
    for host in (first, second):
        host.environment["GLOO_SOCKET_IFNAME"] = "eth0"
    head = [f"--node-ip-address={first.address}", "--port=6379", "--head", "--dashboard-host=127.0.0.1"]
    first.start(*script, "start", *head, f"--temp-dir=/tmp/{first.namespace}", *common, log=folder / "head.log")
    for host, number in ((first, 1), (second, 2)):
        if host is second:
            where = [f"--address={first.address}:6379", f"--node-ip-address={second.address}"]
            second.start(*script, "start", *where, *common, log=folder / "second.log")
        wait_for_nodes(first, number)
    for host in (first, second):
        host.environment["RAY_ADDRESS"] = f"{first.address}:6379"


def wait_for_nodes(first: Host, number: int, patience_s: float = 90) -> None:
    """Until so many nodes are alive."""
    end = time.monotonic() + patience_s
    first.environment["RAY_ADDRESS"] = f"{first.address}:6379"
    while time.monotonic() < end:
        said, _ = first.start(sys.executable, "-m", "ray.scripts.scripts", "status").communicate(timeout=60)
        if said.count(" 1 node_") == number:
            return
        time.sleep(1)
    raise AssertionError(f"no {number} nodes within {patience_s} s: {said}")


def _end_all(namespace: str) -> None:
    """Kill every process of a namespace, and no other."""
    found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in found.stdout.split():
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(pid)).kill()
