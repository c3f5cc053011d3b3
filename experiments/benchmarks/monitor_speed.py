"""How long the monitor takes to open and to refresh: 200 runs with 2,500 rows each, and one run with 500,000.

    python experiments/benchmarks/monitor_speed.py [--runs 200] [--rows 2500] [--browser]

The data side alone, cold and warm; then each page drawn by Streamlit without a browser; with --browser also from the
first byte to the table on the screen in Chromium. Nothing is kept but what is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from monitor_files import draw_rows, draw_run  # noqa: E402


def seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """The least of several."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def draw(outputs: Path, runs: int, rows: int) -> None:
    """`runs` folders with `rows` rows each, and `large` with as many rows as they have together."""
    epochs = 25
    for number in range(runs):
        draw_run(outputs, f"run_{number:03d}", epochs=epochs, steps=rows // epochs - 1, age_s=number)
    large = draw_run(outputs, "large", epochs=epochs, steps=4, age_s=9_999)
    with (large / "metrics.jsonl").open("w") as file:
        for row in draw_rows(epochs, runs * rows // epochs - 1, time.time()):
            file.write(json.dumps(row) + "\n")


def data_side(outputs: Path) -> dict[str, float]:
    """Seconds of the table and of one run's rows."""
    from cabruca.monitor.curves import GROUPS, curve, grouped
    from cabruca.monitor.rows import Rows
    from cabruca.monitor.runs import RunTable

    table, rows, large = (
        RunTable(outputs),
        Rows(outputs / "run_000" / "metrics.jsonl"),
        Rows(outputs / "large/metrics.jsonl"),
    )
    out = {"table of runs, first": seconds(table.all), "table of runs, again": seconds(table.all, 5)}
    out["rows of one run, first"] = seconds(lambda: rows.advance(60))
    out["rows of one run, again"] = seconds(lambda: rows.advance(60), 5)
    out["rows of the large run, first look"] = seconds(lambda: large.advance(1.0))
    out["rows of the large run, all"] = seconds(lambda: large.advance(600))
    out["rows of the large run, again"] = seconds(lambda: large.advance(60), 5)

    def draw_all() -> None:
        for names in grouped(large.names, GROUPS).values():
            for name in names:
                curve(large, name, smoothing=0.6)

    out["curves of the large run"] = seconds(draw_all)
    return out


def pages(outputs: Path) -> dict[str, float]:
    """Seconds of a page's script, first and again."""
    from streamlit.testing.v1 import AppTest

    os.environ["CABRUCA_MONITOR_OUTPUTS"] = str(outputs)
    out = {}
    for name in ("runs", "run", "compare", "checkpoints", "studies"):
        app = AppTest.from_string(f"from cabruca.monitor.views import {name}\n{name}.show()", default_timeout=120)
        out[f"page {name}, first"] = seconds(app.run)
        out[f"page {name}, again"] = seconds(app.run, 3)
        assert not app.exception, app.exception
    return out


def in_browser(outputs: Path) -> dict[str, float]:
    """Seconds until a page's last element is on the screen; the server has just been started."""
    from monitor_browser import Browser, Server, until

    server = Server(outputs, outputs.parent / "server.log")
    browser = Browser(server)
    table = "[data-testid=stDataFrame]"

    def shown(selector: str) -> Callable[[], Any]:
        return lambda: browser.driver.find_elements("css selector", selector)

    def load(path: str, selector: str) -> None:
        browser.driver.get(f"{server.url}/{path}")
        until(shown(selector), 60)

    try:
        out = {"Runs in Chromium, first": seconds(lambda: load("", table))}
        out["Runs in Chromium, again"] = seconds(lambda: load("", table), 3)
        out["Run in Chromium, first"] = seconds(lambda: load("run?run=run_000", ".js-plotly-plot"))
        out["Run in Chromium, again"] = seconds(lambda: load("run?run=run_000", ".js-plotly-plot"), 3)
        out["Run with 500,000 rows in Chromium"] = seconds(lambda: load("run?run=large", ".js-plotly-plot"))
    finally:
        browser.quit()
        server.stop()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=2_500)
    parser.add_argument("--browser", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder) / "outputs"
        draw(outputs, asked.runs, asked.rows)
        size = sum(path.stat().st_size for path in outputs.rglob("metrics.jsonl"))
        print(f"{asked.runs} runs, {2 * asked.runs * asked.rows:,} rows, metrics.jsonl {size / 1e6:.0f} MB together")
        found = {**data_side(outputs), **pages(outputs), **(in_browser(outputs) if asked.browser else {})}
    for name, value in found.items():
        print(f"{name:40} {value:8.3f} s")


if __name__ == "__main__":
    main()
