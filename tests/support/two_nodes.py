"""Two Ray nodes on this machine, as `cluster/local.sh` starts them, and what is done to them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "cluster" / "local.sh"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the system gives out by itself."""
    found = []
    for port in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


@dataclass(frozen=True)
class Nodes:
    """What a test knows of the two: the folder of local.sh, and the environment in which commands find them."""

    folder: Path
    environment: dict[str, str]

    def command(self, *words: str) -> list[str]:
        return [str(LOCAL), *words]

    def run(self, *words: str, code: int = 0) -> str:
        """A command that ends; what it printed."""
        found = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=280, check=False)
        assert found.returncode == code, found.stdout + found.stderr
        return found.stdout + found.stderr

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def cabruca(self, *words: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-m", "cabruca", *words)

    def processes(self, node: str) -> set[int]:
        """Of `head` or `second`: every process that belongs to it."""
        block = psutil.Process(int((self.folder / f"{node}.pid").read_text().split()[0]))
        return {block.pid, *(child.pid for child in block.children(recursive=True))}

    def session(self) -> Path:
        """Folder of the head's Ray session; what /tmp/ray links to may be another cluster's."""
        found = set()
        for pid in self.processes("head"):
            with contextlib.suppress(psutil.NoSuchProcess):
                words = [word.partition("=") for word in psutil.Process(pid).cmdline()]
                found |= {value for key, _, value in words if key in ("--session-dir", "--session_dir")}
        (folder,) = found
        return Path(folder)

    def kill(self, node: str) -> None:
        """As a machine that loses its power takes everything with it."""
        for pid in self.processes(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()


@contextlib.contextmanager
def two_nodes(folder: Path, *, cpus: int = 2) -> Iterator[Nodes]:
    """Start them with `local.sh start`, and stop them with `local.sh stop`."""
    port, dashboard, metrics, _ = free_ports(4)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {
        "CABRUCA_CLUSTER_DIR": str(folder),
        "CABRUCA_CLUSTER_PORT": str(port),
        "CABRUCA_DASHBOARD_PORT": str(dashboard),
        "CABRUCA_METRICS_PORT": str(metrics),
        "CABRUCA_NODE_CPUS": str(cpus),
        "PYTHON": sys.executable,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", ROOT / "tests" / "support"])),
        "RAY_metrics_report_interval_ms": "500",
    }
    nodes = Nodes(folder, environment)
    nodes.run(str(LOCAL), "start")
    try:
        exports = nodes.run(str(LOCAL), "env").splitlines()
        pairs = [line.removeprefix("export ").partition("=") for line in exports]
        environment |= {name: value.strip("'") for name, _, value in pairs}
        yield nodes
    finally:
        nodes.run(str(LOCAL), "stop")
