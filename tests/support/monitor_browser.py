"""`cabruca monitor` as a process, and a real browser that looks at it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def until(look: Callable[[], T], seconds: float, what: str = "") -> T:
    """The first true value of `look`; fails with what was seen last."""
    end, seen = time.monotonic() + seconds, None
    while time.monotonic() < end:
        seen = look()
        if seen:
            return seen
        time.sleep(0.2)
    pytest.fail(f"not within {seconds} s: {what or look}; last: {str(seen)[-1500:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A monitor of one folder; what it prints is kept."""

    def __init__(self, outputs: Path, log: Path) -> None:
        self.port, self.log = free_port(), log
        words = [sys.executable, "-m", "cabruca", "monitor", "--outputs", str(outputs), "--port", str(self.port)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        self.url = f"http://127.0.0.1:{self.port}"
        until(self._answers, 60, "the server answers")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2).status == 200)
        except OSError:
            return False

    @property
    def complaints(self) -> list[str]:
        """Lines of the server's log that are not its greeting."""
        known = ("monitor of", "You can now view", "URL:", "Stopping...")
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if line.strip() and not any(text in line for text in known)]

    def stop(self) -> int:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Browser:
    """Chromium on a server's pages."""

    def __init__(self, server: Server, *, dark: bool = False) -> None:
        webdriver = pytest.importorskip("selenium.webdriver")
        binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if binary is None or driver is None:
            pytest.skip("no Chromium here: apt install chromium chromium-driver")
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1500,1500"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.server = server
        self.driver: Any = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        self.driver.set_page_load_timeout(60)
        if dark:
            self.darken()

    def darken(self, scheme: str = "dark") -> None:
        """As a reader whose system is dark sees it."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def go(self, path: str = "", *, sees: str = "") -> str:
        """Load a page; returns its text once it holds `sees` and is at rest."""
        self.driver.get(f"{self.server.url}/{path}")
        return self.wait(sees) if sees else self.text

    @property
    def text(self) -> str:
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            return str(self.driver.find_element("css selector", "body").text)
        except StaleElementReferenceException:
            return ""

    def wait(self, text: str, seconds: float = 30) -> str:
        """The page's text once it holds `text` and Streamlit is at rest."""
        return until(lambda: text in (now := self.text) and self._rests and now, seconds, f"{text!r} in {self.text}")

    @property
    def _rests(self) -> bool:
        app = self.driver.find_elements("css selector", "[data-testid=stApp][data-test-script-state=running]")
        return not app and not self.driver.find_elements("css selector", "[data-testid=stSkeleton]")

    def click(self, label: str, *, inside: str = "") -> None:
        """The button (or link of the side bar, or choice) with that text."""
        quoted = f"'{label}'"
        path = (
            f"//*[self::button or self::a][.//p[normalize-space()={quoted}] or "
            f".//span[normalize-space()={quoted}] or normalize-space()={quoted}]"
        )

        def found() -> Any:
            scope = self.driver.find_element("css selector", inside) if inside else self.driver
            return [one for one in scope.find_elements("xpath", f".{path}") if one.is_displayed() and one.is_enabled()]

        def press() -> None:
            until(found, 20, f"a button {label}; {self.text}")[0].click()

        self._at_rest(press)

    def _at_rest(self, act: Callable[[], None]) -> None:
        """A page that draws itself anew may take the element away under the hand."""
        from selenium.common.exceptions import (
            ElementClickInterceptedException,
            NoSuchElementException,
            StaleElementReferenceException,
        )

        for _ in range(10):
            try:
                act()
                return
            except (StaleElementReferenceException, ElementClickInterceptedException, NoSuchElementException):
                time.sleep(0.3)
        act()

    def choose(self, label: str, *options: str) -> None:
        """Options of a selectbox or multiselect, typed and taken with Enter."""
        for option in options:

            def pick(option: str = option) -> None:
                field = self.driver.find_element("css selector", f"input[aria-label*='{label}']")
                field.click()
                field.send_keys(option)
                time.sleep(0.4)
                field.send_keys("\ue007")
                field.send_keys("\ue00c")  # Escape: the list of a multiselect stays open over what is below

            self._at_rest(pick)
            time.sleep(0.6)

    def points(self, title: str = "") -> dict[str, int]:
        """Name of a curve -> its points, over all plotly figures of the page."""
        script = """
        const out = {};
        for (const plot of document.querySelectorAll('.js-plotly-plot'))
          for (const trace of plot.data || []) {
            const x = trace.x;
            const many = !x ? 0 : x.length !== undefined ? x.length : (x._inputArray || []).length;
            out[trace.name || ''] = Math.max(out[trace.name || ''] || 0, many);
          }
        return out;"""
        return {str(k): int(v) for k, v in self.driver.execute_script(script).items()}

    @property
    def errors(self) -> list[str]:
        """What the console holds against the page.

        Where an address below the root is loaded, Streamlit's own script first asks below that address for two files
        and then at the root; the 404 of the first is not counted.
        """
        said = [row["message"] for row in self.driver.get_log("browser") if row["level"] == "SEVERE"]
        return [text for text in said if not re.search(r"/\w+/_stcore/(health|host-config) .*\b404\b", text)]

    @property
    def foreign(self) -> list[str]:
        """Addresses that the pages have asked and that are not this server's."""
        import json

        found = []
        for row in self.driver.get_log("performance"):
            message = json.loads(row["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if not url.startswith((self.server.url, "data:", "blob:", "about:")):
                    found.append(url)
        return found

    def picture(self, path: Path, height: int = 1500) -> None:
        """A screenshot; also into $CABRUCA_SCREENSHOTS, for people to look at."""
        self.driver.set_window_size(1500, height)
        time.sleep(1.0)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))
        keep = os.environ.get("CABRUCA_SCREENSHOTS")
        if keep:
            Path(keep).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, Path(keep) / path.name)

    def quit(self) -> None:
        self.driver.quit()
