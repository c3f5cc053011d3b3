"""A running training seen from outside: gauges on the node's endpoint, the run in the dashboard's API, the token."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray_line import many, on_workers, until, worker_pids
from ray_tasks import SlowLine

from cabruca.distributed.cluster import Cluster
from cabruca.train.protocols import BaseCallback, Record


def fetch(url: str, token: str | None = None, timeout_s: float = 60) -> str:
    request = urllib.request.Request(url)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return str(answer.read().decode())


def patiently(url: str) -> str:
    """What the dashboard says, or why it says nothing yet: on a busy machine its first answer takes half a minute,
    for it imports all of Ray Train to give it."""
    try:
        return fetch(url, os.environ["RAY_AUTH_TOKEN"])
    except OSError as error:
        return f"nothing: {error}"


def endpoint() -> str:
    """Where the node publishes its metrics."""
    import ray

    node = next(node for node in ray.nodes() if node["Alive"])
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


class Look(BaseCallback):
    """Looks from outside after the first epoch, while the workers are at work on the second."""

    def __init__(self, dashboard: str) -> None:
        self.dashboard = dashboard
        self.gauges: dict[tuple[str, str], float] = {}
        self.runs = ""
        self.record: Record | None = None

    def on_epoch(self, record: Record) -> None:
        if self.record is not None:
            return
        self.record = record
        last = {("cabruca_val_loss", "0"), ("cabruca_memory_rss_mb", "1")}
        self.gauges = until(lambda: last <= (found := scrape()).keys() and found)
        end = time.monotonic() + 180  # the run is held in its second epoch as long as this looks
        while "train_runs" not in self.runs and time.monotonic() < end:
            self.runs = patiently(f"{self.dashboard}/api/train/v2/runs/v1")
            time.sleep(0.2)


def scrape() -> dict[tuple[str, str], float]:
    """(name, rank) -> value of this run's gauges."""
    found = {}
    for line in fetch(endpoint()).splitlines():
        match = re.match(r"ray_(cabruca_\w+)\{(.*)\} (\S+)$", line)
        if match and 'run="many"' in match[2]:
            found[match[1], re.search(r'rank="(\d)"', match[2])[1]] = float(match[3])  # type: ignore[index]
    return found


@pytest.fixture(scope="module")
def look(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Look:
    assert cluster.dashboard is not None
    look = Look(cluster.dashboard)
    config = many(tmp_path_factory.mktemp("out"), training__num_epochs=2, training__log_interval=1)
    on_workers(config, task=SlowLine, callbacks=[look])
    return look


def test_gauges_of_both_ranks_are_on_the_nodes_endpoint(look: Look) -> None:
    assert {rank for _, rank in look.gauges} == {"0", "1"}
    for name in ("train_loss", "val_loss", "monitored", "images_per_s", "epoch", "step", "memory_rss_mb"):
        assert (f"cabruca_{name}", "0") in look.gauges, look.gauges
    assert look.gauges["cabruca_epoch", "0"] >= 1
    assert 0 < look.gauges["cabruca_monitored", "0"] < 1
    assert look.gauges["cabruca_memory_rss_mb", "1"] > 50


def test_the_run_is_in_the_dashboards_api(look: Look) -> None:
    assert re.search(r'"name": ?"many_\d+"', look.runs), look.runs[:500]
    assert "RUNNING" in look.runs


def test_the_dashboard_is_on_this_machine_alone_and_wants_the_token(cluster: Cluster) -> None:
    assert cluster.dashboard is not None
    assert cluster.dashboard.startswith("http://127.0.0.1:")
    url = f"{cluster.dashboard}/api/train/v2/runs/v1"
    for token in (None, "0" * 64):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(url, token)
        assert refused.value.code in (401, 403)
    assert fetch(url, os.environ["RAY_AUTH_TOKEN"])


EARLY = """
import json, os, sys, urllib.error, urllib.request
import psutil
import ray  # a program of the user's, or a library of his, has looked at it before us
from cabruca.config.load import config_from_dict
from cabruca.distributed.cluster import cluster_for

with cluster_for(config_from_dict({"distributed": {"num_workers": 2}})) as cluster:
    own = {child.pid: child.name() for child in psutil.Process().children(recursive=True)}
    listening = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in own]
    try:
        code = urllib.request.urlopen(f"{cluster.dashboard}/api/train/v2/runs/v1", timeout=60).status
    except urllib.error.HTTPError as error:
        code = error.code
    asked = os.environ["RAY_API_SERVER_ADDRESS"] == cluster.dashboard
ports = [(c.laddr.ip, own[c.pid]) for c in listening]
print(json.dumps({"code": code, "listening": ports, "asked": asked, "after": os.environ.get("RAY_API_SERVER_ADDRESS")}))
"""


def open_to_others(listening: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    return [who for who in listening if who[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")]


def test_no_port_of_ours_is_open_to_others(cluster: Cluster) -> None:
    import psutil

    own = {child.pid: child.name() for child in psutil.Process().children(recursive=True)}
    listening = [
        (c.laddr.ip, own[c.pid]) for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in own
    ]
    assert listening
    assert open_to_others(listening) == []


def test_a_program_that_imported_ray_before_us_is_as_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")  # of the user's own jobs
    done = subprocess.run([sys.executable, "-c", EARLY], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] in (401, 403)
    assert found["listening"]
    assert open_to_others(found["listening"]) == []
    assert (found["asked"], found["after"]) == (True, "http://127.0.0.1:9")


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_browser_shows_the_run(tmp_path: Path, cluster: Cluster) -> None:
    """Chromium, the token typed once as a person would; a screenshot is left for people to look at."""
    browser = _chromium()
    seen: dict[str, str] = {}

    class Visit(BaseCallback):
        def on_epoch(self, record: Record) -> None:
            if not seen:
                try:
                    seen.update(_visit(browser, str(cluster.dashboard), tmp_path))
                finally:
                    seen.setdefault("asked", "")
                    os.kill(os.getpid(), signal.SIGTERM)  # what is left of the run is of no interest

    try:
        result = on_workers(many(tmp_path, training__num_epochs=80), task=SlowLine, callbacks=[Visit()])
    finally:
        browser.quit()
    assert result.state == "interrupted", "it was still training when it was looked at"
    assert "Authentication Token Required" in seen["asked"]
    pids = worker_pids(tmp_path / "many") or []
    for pid in pids:
        assert re.search(rf"RayTrainWorker\b.*?\bALIVE\b.*?\b{pid}\b", seen["actors"], re.DOTALL), seen["actors"][:2000]
    assert len(pids) == 2
    assert (tmp_path / "dashboard.png").stat().st_size > 10_000
    keep = os.environ.get("CABRUCA_SCREENSHOTS")
    if keep:
        Path(keep).mkdir(parents=True, exist_ok=True)
        (Path(keep) / "dashboard.png").write_bytes((tmp_path / "dashboard.png").read_bytes())


def _chromium() -> Any:
    import shutil

    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium here: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1800,1000"):
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def _visit(browser: Any, dashboard: str, folder: Path) -> dict[str, str]:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.wait import WebDriverWait

    def text(selector: str = "body") -> str:
        return str(browser.find_element(By.CSS_SELECTOR, selector).text)

    wait = WebDriverWait(browser, 30)
    browser.get(dashboard)
    dialog = "[role=dialog] input[type=password]"  # the page behind it has fields that nobody can reach
    field = wait.until(expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, dialog)))
    asked = text("[role=dialog]")
    field.send_keys(os.environ["RAY_AUTH_TOKEN"])
    submit = "//*[@role='dialog']//button[normalize-space()='Submit']"
    wait.until(expected_conditions.element_to_be_clickable((By.XPATH, submit))).click()
    wait.until(expected_conditions.invisibility_of_element_located((By.CSS_SELECTOR, "[role=dialog]")))
    browser.get(f"{dashboard}/#/actors")
    actors = until(lambda: (page := text()).count("RayTrainWorker") >= 2 and page)
    browser.save_screenshot(str(folder / "dashboard.png"))
    return {"asked": asked, "actors": actors}
