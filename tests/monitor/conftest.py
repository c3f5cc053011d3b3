"""What trying pages in this process leaves behind is put back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _main_stays() -> Iterator[None]:
    """Streamlit puts a module of its own in the place of `__main__`, which processes spawned later would run."""
    kept = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = kept


def _page(name: str) -> None:
    from cabruca.monitor.look import page

    page(f"cabruca.monitor.views.{name}")()


@pytest.fixture
def open_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Draw a page over `tmp_path / outputs`; nothing may be raised in it."""
    AppTest = pytest.importorskip("streamlit.testing.v1").AppTest
    monkeypatch.setenv("CABRUCA_MONITOR_OUTPUTS", str(tmp_path / "outputs"))

    def draw(name: str, query: dict[str, str] | None = None) -> Any:
        app = AppTest.from_function(_page, args=(name,), default_timeout=60)
        for key, value in (query or {}).items():
            app.query_params[key] = value
        app.run()
        assert not app.exception, app.exception
        return app

    return draw
