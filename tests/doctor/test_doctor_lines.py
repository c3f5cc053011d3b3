"""Versions known to fail, the machine's limits, addresses of trackers, operators against known answers."""

from __future__ import annotations

import shutil
import socket
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from cabruca.config.load import config_from_dict
from cabruca.data import drivers
from cabruca.doctor import diagnosis, libraries, machine, operators, versions
from cabruca.doctor.addresses import address_lines
from cabruca.doctor.lines import Line
from cabruca.tracking.mlflow import tracking_uri
from cabruca.tracking.run_dir import RunDir

Usage = namedtuple("Usage", "total used free")


def lines_with(**found: str | None) -> list[Line]:
    def find(name: str) -> str | None:
        return found.get(name, versions.installed(name))

    return versions.version_lines(find)


def test_what_is_installed_here_is_good() -> None:
    (line,) = lines_with()
    assert (line.level, line.topic) == ("ok", "versions")
    assert f"torch {versions.installed('torch')}" in line.text


@pytest.mark.parametrize("bad", versions.KNOWN_BAD, ids=lambda bad: bad.source)
def test_every_known_bad_combination_is_found_and_its_neighbours_are_not(bad: versions.Bad) -> None:
    """The lowest release in each range, or one below its end; a release beyond the end is not blamed."""
    ends = {name: releases.split(",")[-1] for name, releases in bad.when.items()}
    inside = {name: end[2:] if end.startswith(">=") else _before(end[1:]) for name, end in ends.items()}
    found = [line for line in lines_with(**inside) if bad.source in line.text]
    assert [(line.level, line.remedy) for line in found] == [(bad.level, bad.remedy)]
    capped = next(name for name, end in ends.items() if end.startswith("<"))
    assert not any(bad.source in line.text for line in lines_with(**{**inside, capped: ends[capped][1:]}))


def _before(release: str) -> str:
    *first, last = release.split(".")
    return ".".join([*first, str(int(last) - 1), "9"])


def test_absent_and_too_old_packages_are_errors_with_the_command() -> None:
    absent, *_ = lines_with(timm=None)
    assert absent.level == "error"
    assert absent.text == "cabruca needs timm and it is absent"
    assert absent.remedy.startswith("pip install 'timm>=")
    old = lines_with(rasterio="1.2.0+local")
    assert ("error", "rasterio 1.2.0+local is not the >=1.4 of cabruca") in [(line.level, line.text) for line in old]


def test_torchvision_s_own_needs_are_looked_at() -> None:
    """The pair that gives 'operator torchvision::nms does not exist'."""
    texts = [line.text for line in lines_with(torch="2.6.0")]
    assert any(text.startswith("torch 2.6.0 is not the ") and text.endswith(" of torchvision") for text in texts)


def test_little_disk_shared_memory_and_files_are_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import resource

    monkeypatch.setattr(machine, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 64 * 2**20))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 1000))
    found = {line.topic: line for line in machine.machine_lines()}
    assert {name: line.level for name, line in found.items() if name != "memory"} == {
        **{"shared memory": "warning", "open files": "warning"}
    }
    assert machine.disk(str(tmp_path / "new" / "outputs")).level == "warning"
    assert "--shm-size" in found["shared memory"].remedy
    assert found["open files"].remedy.startswith("ulimit -n 1000,")
    assert not (tmp_path / "new").exists(), "doctor leaves nothing behind"


def test_a_folder_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cabruca.doctor.machine.tempfile.TemporaryFile", refuse)
    said = machine.disk(str(tmp_path))
    assert (said.level, said.remedy) == ("error", "choose another --output-dir")
    assert "Permission denied" in said.text


def address(**tracking: Any) -> list[Line]:
    return address_lines(config_from_dict({"tracking": tracking}))


def test_addresses_of_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert [line.level for line in address()] == ["ok", "ok"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        here = address(mlflow=True, mlflow_uri=f"http://me:hunter2@127.0.0.1:{port}", wandb=True)
        assert [line.text for line in here] == [f"127.0.0.1:{port} answers"] * 2
    gone = address(mlflow=True, mlflow_uri=f"http://me:hunter2@127.0.0.1:{port}", wandb=True)
    assert [line.level for line in gone] == ["warning", "warning"]
    assert all(line.remedy and "hunter2" not in str(line) for line in gone)
    unused = address(mlflow_uri=f"http://127.0.0.1:{port}")
    assert [line.level for line in unused] == ["ok", "ok"]
    assert "the configuration does not use it" in unused[0].text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    assert address(mlflow=True)[0].remedy == "set tracking.mlflow_uri to sqlite:///... or to a server's address"


@pytest.mark.parametrize("uri", ["databricks", "databricks-uc", "databricks://profile"])
def test_databricks_is_an_address(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert str(address(mlflow=True)[0]) == f"OK      mlflow records: go to {uri}"
    assert tracking_uri(RunDir(tmp_path / "a"), config_from_dict({})) == uri


@pytest.mark.parametrize("uri", ["http://me:hunter2@[::1", "http://localhost:99999"])
def test_what_is_no_address_is_a_line(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    line = address(mlflow=True)[0]
    assert line.level == "warning"
    assert "is no address" in line.text
    assert "hunter2" not in str(line)


def test_what_can_hang_is_asked_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server or a network disk that is away: neither is asked in doctor's own process."""

    def here(*_: Any, **__: Any) -> None:
        raise AssertionError("asked in doctor's own process")

    monkeypatch.setattr(socket, "getaddrinfo", here)
    monkeypatch.setattr("cabruca.doctor.machine.tempfile.TemporaryFile", here)
    monkeypatch.setattr(diagnosis, "_compute_jobs", lambda device: ())
    monkeypatch.setattr(diagnosis, "_timed_jobs", lambda device: ())
    monkeypatch.setattr(diagnosis, "_library_jobs", lambda config: ())
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracking = {"mlflow": True, "mlflow_uri": "http://127.0.0.1:9"}
    found = {line.topic: line for line in diagnosis.diagnose(config_from_dict({"tracking": tracking})).lines}
    assert found["mlflow records"].text.startswith("127.0.0.1:9 does not answer (Connection refused")
    assert found["disk"].level in ("ok", "warning")
    assert found["wandb server"].level == "ok"


PROBES = [
    *(operators.convolution, operators.depthwise_bf16, operators.group_norm, operators.upsampling),
    *(operators.transposed_convolution, operators.nms, operators.roi, operators.optimizer_step),
]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
def test_operators_are_right_here(probe: Any) -> None:
    assert probe("cpu").level == "ok"


def test_an_operator_that_computes_wrongly_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not crash: numbers that are off by a hundredth, or NaN, are an error too."""
    real = torch.nn.functional.conv2d
    for wrong in (1.01, float("nan")):

        def off(x: Any, *args: Any, factor: float = wrong, **kwargs: Any) -> Any:
            out = real(x, *args, **kwargs)
            return out if x.dtype == torch.float64 else out * factor

        monkeypatch.setattr(torch.nn.functional, "conv2d", off)
        with pytest.raises(RuntimeError, match="its output on cpu is off by"):
            operators.convolution("cpu")
    monkeypatch.setattr(operators, "batched_nms", lambda boxes, *rest: torch.arange(len(boxes)))
    with pytest.raises(RuntimeError, match=r"kept boxes \[0, 1, 2, 3\]"):
        operators.nms("cpu")


def test_slow_bf16_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators.TorchProbe, "bf16", lambda self, device: True)
    times = iter([1.0, 4.0])
    monkeypatch.setattr(operators, "_median_s", lambda work, device: next(times))
    said = operators.bf16_speed("cpu")
    assert (said.text, said.level) == ("bf16 is 0.2 x as fast as fp32 on cpu", "warning")


def test_a_missing_gdal_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drivers.missing_drivers() == []
    monkeypatch.setattr(drivers, "SIGNATURES", {b"x": "GTiff", b"y": "NoSuchDriver"})
    with pytest.raises(RuntimeError, match="lacks the driver NoSuchDriver"):
        libraries.gdal("")


def test_an_absent_library_is_fine_and_a_broken_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert libraries.optional("no_such_library_at_all").level == "ok"
    (tmp_path / "half_broken.py").write_text("import what_it_needs_and_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        libraries.optional("half_broken")


def test_a_folder_of_the_same_name_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "only_a_folder is not installed" in libraries.optional("only_a_folder").text


def test_a_hidden_gpu_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(libraries, "DRIVER_FILE", tmp_path)
    said = libraries.devices("")
    assert said.level == "warning"
    assert "an NVIDIA driver is here" in said.text
