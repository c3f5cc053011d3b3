"""slurm.sbatch under a stand-in for SLURM that starts local processes: steps, token, the signal before the limit."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from drawn_farm import write_farm
from farm_file import farm_file
from ray_line import until, worker_pids
from two_nodes import ROOT

SCRIPT = ROOT / "cluster" / "slurm.sbatch"

SRUN = """#!/usr/bin/env bash
# starts as many tasks as it is asked for, here
echo "srun $*" >>"$FAKE/log"
echo "cpus ${SRUN_CPUS_PER_TASK:-none}" >>"$FAKE/log"
tasks=1
while [ $# -gt 0 ]; do
  case "$1" in
    --ntasks=*) tasks=${1#--ntasks=}; shift ;;
    --nodes=* | --ntasks-per-node=* | --nodelist=* | --exclude=* | --overlap) shift ;;
    --*) echo "srun: unknown option $1" >&2; exit 1 ;;
    *) break ;;
  esac
done
pids=()
trap 'kill "${pids[@]}" 2>/dev/null' TERM
for _ in $(seq "$tasks"); do "$@" & pids+=($!); done
code=0
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
exit "$code"
"""

SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$FAKE/log"
if [ "$1 $2" = "show hostnames" ]; then printf '%s\\n' $FAKE_NODES; fi
"""

HOSTNAME = """#!/usr/bin/env bash
if [ "$1" = --ip-address ]; then echo "${FAKE_IP-10.0.0.7}"; else echo "${FAKE_IPS-} "; fi
"""

RAY = """#!/usr/bin/env bash
# a node that is there until it is told to end
case "$1" in
  start)
    echo "ray $*" >>"$FAKE/log"
    stat -c 'token %a' "$RAY_AUTH_TOKEN_PATH" >>"$FAKE/log"
    echo "mode $RAY_AUTH_MODE address ${RAY_ADDRESS:-none}" >>"$FAKE/log"
    [ -n "${FAKE_NO_NODE:-}" ] || touch "$FAKE/node_$BASHPID"
    trap 'echo "ray ends" >>"$FAKE/log"; exit 0' TERM
    while true; do sleep 0.1; done ;;
  status) for n in "$FAKE"/node_*; do [ ! -e "$n" ] || echo " 1 node_x"; done ;;
esac
"""

CABRUCA = """#!/usr/bin/env bash
echo "cabruca $* at $RAY_ADDRESS" >>"$FAKE/log"
trap 'echo "cabruca saves" >>"$FAKE/log"; sleep 0.5; exit 143' TERM
for _ in $(seq "${FAKE_SECONDS:-0}"0); do sleep 0.1; done
exit "${FAKE_CODE:-0}"
"""


class Slurm:
    """A place with a PATH of stand-ins, in which the script runs."""

    def __init__(self, folder: Path, nodes: str, programs: dict[str, str]) -> None:
        self.folder, self.log = folder, folder / "log"
        (folder / "bin").mkdir()
        for name, text in programs.items():
            path = folder / "bin" / name
            path.write_text(text)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SLURM_"))}
        self.environment |= {
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "FAKE": str(folder),
            "FAKE_NODES": nodes,
            "SLURM_JOB_ID": str(1000 + os.getpid() % 9000),
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "SLURM_CPUS_PER_TASK": "1",
            "CABRUCA_START_TIMEOUT_S": "90",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def told(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.is_file() else []


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    programs = {"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME, "ray": RAY, "cabruca": CABRUCA}
    return Slurm(tmp_path, "node-a node-b node-c", programs)


def test_a_head_the_others_then_the_command(slurm: Slurm) -> None:
    job = slurm.start("train", "--config", "a b.yaml", "--workers", "8")
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 0, output
    told = slurm.told()
    port = 20000 + int(slurm.environment["SLURM_JOB_ID"]) % 10000
    starts = [line for line in told if line.startswith("ray start")]
    assert len(starts) == 3
    assert "--head" in starts[0]
    assert f"--port={port}" in starts[0]
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert all(f"--address=10.0.0.7:{port}" in line for line in starts[1:])
    steps = [line for line in told if line.startswith("srun") and "ray start" in line]
    assert "--nodelist=node-a" in steps[0]
    assert "--exclude=node-a" in steps[1]
    assert "--ntasks=2" in steps[1]
    assert told.count("token 600") == 3
    assert {line for line in told if line.startswith("cpus")} == {"cpus 1"}
    modes = [line for line in told if line.startswith("mode")]
    assert modes[0] == "mode token address none", "a head that finds an address joins that"
    assert set(modes[1:]) == {f"mode token address 10.0.0.7:{port}"}
    assert f"cabruca train --config a b.yaml --workers 8 at 10.0.0.7:{port}" in told
    assert told.count("ray ends") == 3
    assert not list((slurm.folder / "home").rglob("token"))


@pytest.mark.parametrize(
    ("named", "every", "head"),
    [
        ("127.0.1.1 10.0.0.7", "192.168.0.2", "10.0.0.7"),
        ("fe80::1%eth0 ::1 2001:db8::7 10.0.0.7", "", "10.0.0.7"),
        ("127.0.1.1", "192.168.0.2 172.17.0.1 2001:db8::7", "192.168.0.2"),
        ("::1 127.0.0.1", "2001:db8::7", None),
    ],
)
def test_the_head_is_at_an_address_that_the_others_reach(
    slurm: Slurm, named: str, every: str, head: str | None
) -> None:
    slurm.environment |= {"FAKE_IP": named, "FAKE_IPS": every, "FAKE_NODES": "node-a"}
    job = slurm.start("train", "--config", "c.yaml")
    output, _ = job.communicate(timeout=60)
    if head is None:
        assert job.returncode == 1
        assert "node node-a names no IPv4 address but loopback ones; set CABRUCA_HEAD_IP" in output
        assert not any(line.startswith("ray") for line in slurm.told())
        return
    assert job.returncode == 0, output
    assert any(f"--node-ip-address={head} " in line for line in slurm.told())


def test_the_head_s_address_may_be_given(slurm: Slurm) -> None:
    slurm.environment |= {"CABRUCA_HEAD_IP": "192.168.9.9", "FAKE_NODES": "node-a"}
    output, _ = slurm.start("train", "--config", "c.yaml").communicate(timeout=60)
    assert "head node-a (192.168.9.9:" in output


@pytest.mark.parametrize(("sent", "again"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_the_signal_before_the_time_limit_queues_again_and_a_stop_does_not(
    slurm: Slurm, sent: signal.Signals, again: bool
) -> None:
    slurm.environment["FAKE_SECONDS"] = "60"
    job = slurm.start("tune", "--study", "s.yaml", "--resume")
    until(lambda: any(line.startswith("cabruca tune") for line in slurm.told()))
    job.send_signal(sent)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 143, output
    told = slurm.told()
    assert "cabruca saves" in told
    assert (f"scontrol requeue {slurm.environment['SLURM_JOB_ID']}" in told) == again
    assert told.count("ray ends") == 3
    assert "#SBATCH --signal=B:USR1@300" in SCRIPT.read_text()


def test_the_command_s_exit_code_is_the_job_s(slurm: Slurm) -> None:
    slurm.environment["FAKE_CODE"] = "2"
    job = slurm.start("train", "--config", "missing.yaml")
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 2, output
    assert not any("requeue" in line for line in slurm.told())


def test_nodes_that_do_not_come_end_the_job(slurm: Slurm) -> None:
    slurm.environment |= {"FAKE_NO_NODE": "1", "CABRUCA_START_TIMEOUT_S": "2"}
    slurm.environment["FAKE_NODES"] = "node-a node-b"
    (slurm.folder / "bin" / "ray").write_text(
        RAY.replace('for n in "$FAKE"/node_*; do [ ! -e "$n" ] || echo " 1 node_x"; done', "true")
    )
    job = slurm.start("train", "--config", "c.yaml")
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "fewer than 1 Ray nodes after 2 s" in output
    assert not any(line.startswith("cabruca") for line in slurm.told())


def test_a_job_without_a_command_says_how(slurm: Slurm) -> None:
    job = slurm.start()
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 2
    assert "sbatch cluster/slurm.sbatch train" in output


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_its_steps_train_on_two_real_nodes(tmp_path: Path) -> None:
    """The same script with the real Ray and cabruca: a node a step, both on the loopback of this machine."""
    pytest.importorskip("ray")
    own = f"#!/usr/bin/env bash\nexec {sys.executable} "
    programs = {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "hostname": HOSTNAME,
        "ray": f'{own}{ROOT / "cluster" / "second_node.py"} "$@"\n',
        "cabruca": f'{own}-m cabruca "$@"\n',
    }
    slurm = Slurm(tmp_path, "node-a node-b", programs)
    slurm.environment |= {
        "CABRUCA_HEAD_IP": "127.0.0.1",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", ROOT / "tests" / "support"])),
    }
    config = farm_file(write_farm(tmp_path / "farm"), tmp_path / "outputs", tmp_path / "farm.yaml")
    wanted = ["--set", "distributed.resources_per_worker={CPU: 1}"]
    job = slurm.start("train", "--config", str(config), "--experiment-name", "job", "--workers", "2", *wanted)
    output, _ = job.communicate(timeout=350)
    assert job.returncode == 0, output
    run = tmp_path / "outputs" / "job"
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert len(worker_pids(run) or []) == 2
    assert "2 workers x 1 CPU" in output
    assert not any(str(tmp_path) in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
