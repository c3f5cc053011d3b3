"""The monitor in a real browser, over a training that is under way; pictures of it are left for people to look at."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_browser import Browser, Server, until
from monitor_files import draw_prediction, draw_run, draw_study
from run_helpers import child_command, line_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that have ended, one that died, a study, a prediction."""
    folder = tmp_path_factory.mktemp("outputs")
    draw_run(folder, "first", epochs=6, lr=0.01, best=0.5)
    draw_run(folder, "second", epochs=6, lr=0.02, best=0.7)
    draw_run(folder, "died", state="running", age_s=300)
    draw_study(folder)
    draw_prediction(folder / "second" / "predictions")
    return folder


@pytest.fixture(scope="module")
def server(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(outputs, tmp_path_factory.mktemp("log") / "server.log")
    yield server
    assert server.stop() == 0
    assert server.complaints == []


@pytest.fixture(scope="module")
def chromium(server: Server) -> Iterator[Browser]:
    browser = Browser(server)
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Browser, tmp_path: Path) -> Iterator[Browser]:
    """The browser, whose console is clean before and after, and which has asked nobody else for anything."""
    chromium.darken("light")
    assert chromium.errors == []
    yield chromium
    chromium.picture(tmp_path / "last.png")
    assert chromium.errors == []
    assert chromium.foreign == []


@pytest.fixture
def training(outputs: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real training of the line, slow enough to be watched."""
    config = line_config(outputs, experiment_name="live", training__num_epochs=500, training__log_interval=1)
    given = tmp_path / "config.json"
    given.write_text(json.dumps(config.to_dict()))
    support = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "LINE_SLEEP_S": "0.25"}
    process = subprocess.Popen(child_command(given), env={**os.environ, **support}, stdout=subprocess.DEVNULL)
    until((outputs / "live" / "training_history.json").is_file, 90, "a first epoch")
    yield process
    process.kill()
    process.wait()
    shutil.rmtree(outputs / "live", ignore_errors=True)


def curve(browser: Browser, name: str = "train/total_loss") -> int:
    return browser.points().get(name, 0)


def test_promise_1_curves_grow_without_a_reload(
    browser: Browser, training: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    browser.go("", sees="Tick one run")
    browser.click("Run")
    browser.choose("Run", "live")
    browser.wait("running")
    before = until(lambda: curve(browser), 30, "a curve")
    marked = browser.driver.execute_script("return window.notReloaded = Math.random()")
    after = until(lambda: (now := curve(browser)) > before + 5 and now, 40, f"more than {before} points")
    assert after > before
    assert browser.driver.execute_script("return window.notReloaded") == marked
    browser.picture(tmp_path / "run_live.png")
    training.kill()  # and the page says that it died, by itself
    training.wait()
    said = browser.wait("This run died", 30)
    assert "--resume auto --experiment-name live" in said
    browser.picture(tmp_path / "run_died.png")


def test_promise_2_system_resources(browser: Browser, tmp_path: Path) -> None:
    browser.go("run?run=first", sees="finished as drawn")
    browser.click("System")
    said = browser.wait("CPU, percent")
    for label in ("Pictures a second", "Memory of the process", "800 MB", "40 %"):
        assert label in said
    until(lambda: {"cpu_percent", "images_per_s"} <= browser.points().keys(), 20, "curves of the machine")
    browser.picture(tmp_path / "system.png")


def test_promise_3_a_checkpoint_is_removed_after_a_question(browser: Browser, outputs: Path, tmp_path: Path) -> None:
    folder = outputs / "first" / "checkpoints"
    browser.go("checkpoints?run=first", sees="Use it")
    browser.choose("Checkpoints to remove", "checkpoint_epoch_2.pth")
    browser.click("Remove ...")
    assert "This frees 2.0 kB" in browser.wait("cannot be undone")
    browser.picture(tmp_path / "confirm.png")
    assert (folder / "checkpoint_epoch_2.pth").is_file(), "not before it is confirmed"
    browser.click("Keep them")
    time.sleep(1)
    assert (folder / "checkpoint_epoch_2.pth").is_file()
    browser.click("Remove ...")
    browser.click("Remove for good")
    browser.wait("Removed 1 checkpoint of first: 2.0 kB freed.")
    assert not (folder / "checkpoint_epoch_2.pth").exists()
    assert (folder / "checkpoint_best.pth").is_file()
    browser.picture(tmp_path / "checkpoints.png")


def test_promise_4_two_runs_are_compared(browser: Browser, tmp_path: Path) -> None:
    browser.go("", sees="Tick one run")
    browser.click("Compare")
    browser.wait("Runs")
    browser.choose("Runs", *[name for name in ("first", "second") if name not in _chosen(browser)])
    browser.wait("Parallel coordinates")
    until(lambda: {"first", "second"} <= browser.points().keys(), 20, "a line a run")
    browser.picture(tmp_path / "compare.png", 2_400)


def _chosen(browser: Browser) -> str:
    return str(browser.driver.find_element("css selector", "[data-testid=stMultiSelect]").text)


def test_promise_5_the_configuration_and_what_differs_from_the_defaults(browser: Browser, tmp_path: Path) -> None:
    browser.go("run?run=second", sees="finished as drawn")
    browser.click("Configuration")
    browser.wait("keys differ from the defaults of today")
    until(lambda: "optimizer.lr" in _cells(browser), 20, "the key that was set")
    assert "data.tile_size" not in _cells(browser), "that one is as the default has it"
    browser.picture(tmp_path / "configuration.png")


def _cells(browser: Browser) -> str:
    """Text of the table, which is drawn on a canvas, from what it offers to screen readers."""
    script = "return (document.querySelector('[data-testid=stDataFrame] table') || {}).textContent || ''"
    return str(browser.driver.execute_script(script))


def test_a_study_is_opened(browser: Browser, tmp_path: Path) -> None:
    browser.go("", sees="Runs")
    browser.click("Studies")
    assert "8 of 8" in browser.wait("Leaderboard")
    browser.picture(tmp_path / "study.png", 1_600)
    browser.click("Curves")
    until(lambda: "trial 5 (finished, best)" in browser.points(), 20, "the best trial's curve")
    browser.picture(tmp_path / "study_curves.png")
    browser.click("Optuna")
    browser.wait("Drawn by Optuna")
    for title in ("Importance", "Slice", "Contour", "Parallel coordinates", "Timeline"):
        browser.click(title)
        browser.wait("Drawn by Optuna")
        until(lambda: browser.driver.find_elements("css selector", ".js-plotly-plot"), 20, title)
    browser.click("Failed trials")
    browser.wait("RuntimeError: out of luck")


def test_the_map_shows_crowns_over_the_picture(browser: Browser, tmp_path: Path) -> None:
    browser.go("", sees="Runs")
    browser.click("Map")
    browser.wait("Crowns shown")
    until(lambda: any(name.startswith("cacao_tree (") for name in browser.points()), 20, "crowns")
    assert browser.driver.find_elements("css selector", ".js-plotly-plot image"), "the orthomosaic lies below"
    browser.picture(tmp_path / "map.png", 1_500)


def test_a_half_written_run_and_a_history_with_nan(browser: Browser, outputs: Path, tmp_path: Path) -> None:
    half = outputs / "half"
    half.mkdir()
    for name, text in (("status.json", ""), ("config.yaml", "training: [1,"), ("metrics.jsonl", '{"time": 1')):
        (half / name).write_text(text)
    with (draw_run(outputs, "nan") / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1, "stage": 0, "epoch": 4, "step": 25, "train/total_loss": NaN, "val/mAP_50": null}\n')
    try:
        browser.go("run?run=half", sees="No numbers yet")
        browser.picture(tmp_path / "half.png")
        browser.go("run?run=nan", sees="Losses")
        until(lambda: curve(browser) > 20, 20, "a curve with a gap")
        browser.picture(tmp_path / "nan.png")
        browser.go("", sees="Tick one run")
    finally:
        shutil.rmtree(half)
        shutil.rmtree(outputs / "nan")


def test_every_page_in_the_dark(browser: Browser, tmp_path: Path) -> None:
    browser.darken()
    for page, sees in (
        *(("", "Sort by"), ("run?run=second", "Losses"), ("run?run=died", "died"), ("compare", "Parallel coordinates")),
        *(("checkpoints?run=second", "Use it"), ("studies", "Leaderboard"), ("map", "Crowns shown")),
    ):
        browser.go(page, sees=sees)
        colour = browser.driver.execute_script(
            "return getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
        )
        assert colour == "rgb(17, 23, 19)"
        browser.picture(tmp_path / f"dark_{page.partition('?')[0] or 'runs'}.png", 1_700)


def answer(server: Server, header: dict[str, str]) -> int:
    """The HTTP code that a page's first request for live data gets."""
    own = {"Host": f"127.0.0.1:{server.port}", "Origin": server.url, "Connection": "Upgrade", "Upgrade": "websocket"}
    key = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw=="}
    lines = [f"{name}: {value}" for name, value in {**own, **key, **header}.items()]
    with socket.create_connection(("127.0.0.1", server.port), 10) as line:
        line.sendall("\r\n".join(["GET /_stcore/stream HTTP/1.1", *lines, "", ""]).encode())
        return int(line.recv(100).split()[1])


def test_other_sites_and_other_host_names_are_refused(tmp_path: Path) -> None:
    server = Server(tmp_path, tmp_path / "server.log")
    try:
        assert answer(server, {}) == 101
        assert answer(server, {"Origin": "http://evil.example"}) == 403
        # a name that its owner has bound to 127.0.0.1 meanwhile
        assert answer(server, {"Host": "evil.example", "Origin": "http://evil.example"}) == 403
    finally:
        server.stop()


def test_an_empty_folder_becomes_a_page_of_runs_by_itself(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    server = Server(outputs, tmp_path / "server.log")
    browser = Browser(server)
    try:
        browser.go("", sees="No run yet")
        browser.picture(tmp_path / "empty.png", 900)
        draw_run(outputs, "newcomer")
        until(lambda: browser.driver.find_elements("css selector", "[data-testid=stDataFrame]"), 40, "the new run")
        assert browser.errors == []
    finally:
        browser.quit()
        assert server.stop() == 0
    assert server.complaints == []
