"""`cabruca predict --quiet` hides progress, not what may cost crowns."""

from __future__ import annotations

import pytest

from cabruca.cli.predict_progress import Teller


def test_quiet_lets_warnings_through(capsys: pytest.CaptureFixture[str]) -> None:
    with Teller(quiet=True, as_json=False) as teller:
        teller.say("crowns on a seam may be cut")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "crowns on a seam may be cut\n")
