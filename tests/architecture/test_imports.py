"""Imports point one way, optional libraries stay in their room, files stay small, nothing unpickles or executes.

Every import counts, also those inside a function.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cabruca"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = {path: str(path.relative_to(ROOT)) for path in sorted([*FILES, *(ROOT / "tests").rglob("*.py")])}

LEAVES = {
    "_version", "errors", "runtime", "crops", "ground", "structures", "draws", "commands", "findings", "facts", "page",
    "durable", "colours", "words",
}  # fmt: skip
JOINT = LEAVES | {"config", "data", "model", "metrics", "pictures", "measuring", "task", "operating_point"}
LOCAL = JOINT | {"train", "tracking", "dry_run", "run", "evaluation", "predict"}
ALLOWED: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "commands": set(),
    "colours": set(),
    "words": set(),
    "crops": set(),
    "page": set(),
    "ground": set(),
    "findings": set(),
    "input_spec": set(),
    "structures": {"crops", "ground", "input_spec"},
    "facts": set(),
    "draws": set(),
    "durable": set(),
    "runtime": {"errors"},
    "config": LEAVES,
    "data": LEAVES | {"config"},
    "model": LEAVES | {"config"},
    "metrics": LEAVES | {"config"},
    "train": LEAVES | {"config"},
    "pictures": LEAVES | {"config", "train.protocols"},
    "measuring": LEAVES | {"config", "data", "metrics"},
    "operating_point": {"errors", "train.checkpoint"},
    "task": JOINT | {"train.protocols"},
    "tracking": LEAVES
    | {"__init__", "config", "train.protocols", "train.checkpoint", "train.sidecar"},  # __init__: where it lies
    "dry_run": LEAVES | {"config", "train", "tracking"},
    "preparing": JOINT | {"train", "tracking", "held_out"},
    "run": JOINT | {"train", "tracking", "dry_run", "preparing"},
    "evaluation": JOINT | {"train", "tracking.charting"},
    "predict": JOINT
    | {"train.checkpoint", "train.precision", "train.shortage", "train.sidecar", "tracking", "evaluation"},
    "exporting": JOINT | {"_version", "evaluation", "tracking"},
    "thresholding": JOINT | {"train", "evaluation"},
    "served_model": JOINT | {"evaluation", "tracking.mlflow_model"},
    "held_out": LEAVES | {"config", "train.protocols", "tracking", "evaluation", "held_out_report"},
    "held_out_report": {"words"},
    "study_report": LEAVES | {"config", "tracking"},
    # reads what runs and studies leave; what of tracking needs torch it may not (tests/monitor/test_monitor_room.py)
    "monitor": LEAVES | {"config", "tracking", "study_report.parts", "study_report.evaluator", "data.raster"},
    "distributed": LOCAL | {"preparing", "study_report"},
    "launch": LEAVES | {"config", "train.protocols", "run", "evaluation", "predict", "distributed"},
    "study_looks": LEAVES | {"config", "tracking", "study_report"},
    "tuning": LEAVES | {"config", "tracking", "study_report", "distributed"},
    "demo_study": LEAVES | {"config", "data", "tracking", "tuning"},
    "demo": LOCAL | {"demo_study"},
    "doctor": LEAVES | {"config", "data"},
    "cli": LOCAL | {"thresholding", "exporting", "launch", "tuning", "study_looks", "demo", "doctor", "monitor"},
    "__init__": {"_version", "config", "launch", "evaluation", "train"},
    "__main__": {"cli"},
}
"""Room -> what it may import besides itself; a dotted name allows that module alone."""

THIRD_PARTY = {
    "ray": {"distributed"},
    # the monitor shows its figures and asks it nothing
    "optuna": {"distributed", "monitor/optuna_figures.py", "study_report/evaluator.py"},
    "pyarrow": {"distributed"},
    "streamlit": {"monitor"},
    "plotly": {"monitor"},
    "rasterio": {"data"},
    "pyogrio": {"data", "predict", "monitor"},
    "mlflow": {"tracking/mlflow_client.py", "tracking/mlflow_model.py", "tracking/environment.py"},
    "wandb": {"tracking/wandb.py", "tracking/environment.py"},
    "timm": {"model"},
    "click": {"cli"},
    "rich": {"tracking", "cli"},
    "faster_coco_eval": {"metrics", "data"},
    "yaml": {"config"},
}
"""Library -> the only rooms or files that import it."""


def imported(tree: ast.AST, package: str) -> Iterator[tuple[str, int]]:
    """Every dotted name that is imported, with its line; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((str(a.value), node.lineno) for a in node.args[:1] if isinstance(a, ast.Constant))


def violations(source: str, path: str) -> list[str]:
    """Imports in `source` that `path` (relative to the package) may not have."""
    room, package = path.split("/", maxsplit=1)[0].removesuffix(".py"), ".".join(["cabruca", *path.split("/")[:-1]])
    if room not in ALLOWED:
        return [f"{path}: room '{room}' is not in ALLOWED of this test; decide what it may import"]
    found = []
    for name, line in imported(ast.parse(source), package):
        top, _, inside = name.partition(".")
        if top == "cabruca":
            target = inside or "__init__"
            allowed = ALLOWED[room] | {room}
            if not any(target == one or target.startswith(f"{one}.") for one in allowed):
                found.append(f"{path}:{line} imports {name}")
        elif not any(one in (path, room) for one in THIRD_PARTY.get(top, {room})):
            found.append(f"{path}:{line} imports {name}")
    return found


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_imports_point_one_way(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE))) == []


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("import cabruca.model.build", "train/loop.py"),
        ("def f():\n    from cabruca.data import coco", "train/loop.py"),
        ("from cabruca import task", "metrics/evaluator.py"),
        ("from ..model import build", "data/dataset.py"),
        ("import importlib\nimportlib.import_module('cabruca.model')", "data/dataset.py"),
        ("from cabruca.train.loop import train", "tracking/reporter.py"),
        ("import cabruca", "errors.py"),
        ("def f():\n    import ray.train", "run.py"),
        ("from rasterio import windows", "train/loop.py"),
        ("import mlflow", "tracking/wandb.py"),
        ("", "newroom/x.py"),
    ],
)
def test_a_wrong_import_is_seen(source: str, path: str) -> None:
    assert len(violations(source, path)) == 1


def test_siblings_and_rooms_below_are_free() -> None:
    assert violations("from . import protocols\nfrom cabruca.config.schema import Config", "train/loop.py") == []
    assert violations("from cabruca.train import checkpoint", "tracking/resume.py") == []


def test_rooms_form_no_circle() -> None:
    def reach(room: str, seen: frozenset[str]) -> None:
        assert room not in seen, f"{room} reaches itself"
        for below in {name.split(".")[0] for name in ALLOWED[room]} - {room, "__init__"}:
            reach(below, seen | {room})

    for room in ("config", "data", "model", "metrics", "train", "task", "tracking", "evaluation"):
        reach(room, frozenset())


def test_everything_imports_where_ray_cannot() -> None:
    code = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "optuna", "streamlit"):
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Blocker())
import cabruca
names = [m.name for m in pkgutil.walk_packages(cabruca.__path__, "cabruca.")]
for name in names:
    if not name.endswith("__main__") and ".distributed" not in name and ".monitor" not in name:
        importlib.import_module(name)
print(len(names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


UNSAFE_YAML = {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"}


def unsafe(source: str) -> list[str]:
    """Calls in `source` that may run code from a file: pickles and full YAML."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(a.name in ("dill", "joblib", "cloudpickle") for a in node.names):
            found.append(f"line {node.lineno} imports a pickle library")
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if owner == "yaml" and name in UNSAFE_YAML:
            found.append(f"line {node.lineno}: yaml.{name}")
        if owner == "torch" and name == "load" and keywords.get("weights_only") != "True":
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if owner == "pickle" and name in ("load", "loads", "Unpickler"):  # its exceptions may be caught
            found.append(f"line {node.lineno}: pickle.{name}")
        if owner == "np" and name == "load" and keywords.get("allow_pickle", "False") != "False":
            found.append(f"line {node.lineno}: np.load with allow_pickle")
        if name == "torch_load" or (owner == "hub" and name.startswith("load_state_dict")):
            found.append(f"line {node.lineno}: {owner}.{name}")
    return found


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_no_file_is_executed(path: Path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "np.load(path, allow_pickle=True)",
        "import pickle\npickle.load(file)",
    ],
)
def test_an_unsafe_read_is_seen(source: str) -> None:
    assert len(unsafe(source)) == 1


@pytest.mark.parametrize("path", NAMES, ids=NAMES.get)
def test_files_stay_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 300, "a file that wants more holds two ideas"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_every_module_says_what_it_is(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not source.strip() or path.name in ("_version.py",) or ast.get_docstring(ast.parse(source))
