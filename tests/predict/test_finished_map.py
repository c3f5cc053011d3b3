"""A map that is there already: `--resume` says what came of it, where it is the one that is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from perfect import Perfect
from test_resume import DISCS, HW, a_plan

from cabruca.errors import RunError
from cabruca.predict.finished import finished
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run


@pytest.mark.parametrize("out", ["x.gpkg", "x.geojson", "x.fgb"])
def test_a_finished_map_is_compared_with_what_is_asked_for(tmp_path: Path, out: str) -> None:
    plan = dataclasses.replace(a_plan(tmp_path, out), checkpoint="c.pth", sha256="a" * 64)
    done = run(plan, InProcess(Perfect(DISCS, HW)))
    assert finished(plan, resume=False) is None
    again = finished(plan, resume=True)
    assert again is not None
    assert (again.crowns, again.area_ha, again.rasters) == (done.crowns, pytest.approx(done.area_ha), done.rasters)
    other = dataclasses.replace(plan.request, images=plan.request.images[:1])
    with pytest.raises(RunError, match=r"is finished and shows .*b.tif, not .*a.tif; choose another --out"):
        finished(dataclasses.replace(plan, request=other), resume=True)
    with pytest.raises(RunError, match=r"made by a checkpoint of sha256 a{12}, and 'c.pth' has b{12}; choose"):
        finished(dataclasses.replace(plan, sha256="b" * 64), resume=True)
    with pytest.raises(RunError, match=r"other settings \(score: .*0\.5} then, .*0\.1} now\); ask for those, choose"):
        finished(dataclasses.replace(plan, score={"cacao_tree": 0.5, "shade_tree": 0.1}), resume=True)


@pytest.mark.parametrize(
    "content", [b"hello", b'{"type": "FeatureCollection", "features": []}', b"<OGRVRTDataSource/>"]
)
def test_what_is_no_map_is_no_finished_map(tmp_path: Path, content: bytes) -> None:
    plan = a_plan(tmp_path, "x.gpkg")
    plan.request.out.write_bytes(content)
    with pytest.raises(RunError, match=r"is there and .*; choose another --out, or remove it") as caught:
        finished(plan, resume=True)
    assert "\n" not in str(caught.value)
