"""Installed versions against what the package asks for, and against combinations that are known to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from cabruca.doctor.lines import Level, Line


@dataclass(frozen=True)
class Bad:
    """A combination of releases that fails; all of `when` must hold.

    Attributes:
        when: package -> releases. reason: what happens. source: where that can be read.
    """

    when: Mapping[str, str]
    level: Level
    reason: str
    remedy: str
    source: str


KNOWN_BAD = (
    Bad(
        {"torch": "<2.6"},
        "error",
        "opening a checkpoint can run code although weights_only=True is set",
        "pip install -U torch torchvision",
        "CVE-2025-32434",
    ),
    Bad(
        {"torch": ">=2.6,<2.10"},
        "warning",
        "a crafted checkpoint can corrupt memory although weights_only=True is set",
        "open only checkpoints of people you trust, or pip install -U torch torchvision",
        "CVE-2026-24747",
    ),
    Bad(
        {"shapely": "<2.0.4", "numpy": ">=2.0"},
        "error",
        "shapely was built for NumPy 1 and cannot be imported",
        "pip install -U shapely",
        "github.com/shapely/shapely/issues/1972",
    ),
    Bad(
        {"shapely": "<2.0.6", "numpy": ">=2.1"},
        "error",
        "shapely cannot work with NumPy 2.1 and later",
        "pip install -U shapely",
        "github.com/shapely/shapely/issues/2109",
    ),
    Bad(
        {"tensorboard": "<2.21", "setuptools": ">=82"},
        "warning",
        "the program tensorboard does not start (no pkg_resources); what a run writes is whole",
        "pip install -U tensorboard, or 'setuptools<82'",
        "github.com/tensorflow/tensorboard/issues/7107",
    ),
    Bad(
        {"tensorboard": "<2.17", "protobuf": ">=5.26"},
        "warning",
        "the HPARAMS page of TensorBoard fails",
        "pip install -U tensorboard",
        "github.com/tensorflow/tensorboard/issues/6808",
    ),
)
"""Looked up when written; a release that mends one of them ends its range."""

PACKAGE = "cabruca"
PAIRS = ("torchvision", "shapely", "scipy", "rasterio", "timm")
"""Packages whose own needs are looked at too: they are built against torch or NumPy."""

Find = Callable[[str], str | None]


def installed(name: str) -> str | None:
    """The version of a package, None where it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def version_lines(find: Find = installed) -> list[Line]:
    """One line for each package that is absent, too old or known to fail here; one for all the others together."""
    lines = [*_needs(PACKAGE, find)]
    for name in PAIRS:
        lines += _needs(name, find) if find(name) is not None else []
    lines += [
        Line("versions", bad.level, f"{_named(bad, find)}: {bad.reason} ({bad.source})", bad.remedy)
        for bad in KNOWN_BAD
        if all(_within(find(name), releases) for name, releases in bad.when.items())
    ]
    told = ", ".join(f"{name} {find(name)}" for name in ("torch", "torchvision", "timm", "numpy", "rasterio"))
    return lines or [Line("versions", "ok", f"{told}: as asked for, and none known to fail here")]


def _needs(package: str, find: Find) -> Iterator[Line]:
    for text in _requirements(package):
        try:
            need = Requirement(text)
        except InvalidRequirement:
            continue
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        found = find(need.name)
        if found is None:
            yield Line("versions", "error", f"{package} needs {need.name} and it is absent", f"pip install '{need}'")
        elif not _within(found, str(need.specifier)):
            remedy = f"pip install '{need}'"
            yield Line("versions", "error", f"{need.name} {found} is not the {need.specifier} of {package}", remedy)


def _requirements(package: str) -> list[str]:
    try:
        return requires(package) or []
    except PackageNotFoundError:
        return []


def _within(found: str | None, releases: str) -> bool:
    """Whether a version is in a range; a local part such as `+cu126` does not matter."""
    if found is None:
        return False
    try:
        return SpecifierSet(releases).contains(Version(found).public, prereleases=True)
    except InvalidVersion:
        return True  # not ours to judge


def _named(bad: Bad, find: Find) -> str:
    return " with ".join(f"{name} {find(name)}" for name in bad.when)
