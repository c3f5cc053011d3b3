"""Windows of rasters: values, validity, ground sampling distance, and what is refused."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from drawn_data import disc, write_raster
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from cabruca.data import raster
from cabruca.errors import DataError


def _ramp(count: int, dtype: str, side: int = 40) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.stack([(columns + 100 * rows + 7 * b) % 251 for b in range(count)]).astype(dtype)


@pytest.mark.parametrize(("count", "dtype"), [(1, "uint8"), (3, "uint8"), (5, "uint16"), (4, "float32")])
@pytest.mark.parametrize("tiled", [True, False])
def test_window_reads_the_pixels_it_names(tmp_path: Path, count: int, dtype: str, tiled: bool) -> None:
    truth = _ramp(count, dtype)
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    profile = {**layout, "photometric": "MINISBLACK"}
    path = write_raster(tmp_path / "a.tif", truth, **profile)
    pixels, valid = raster.read(path, tuple(range(1, count + 1)), (5, 11, 20, 10))
    if count != 4:  # rasterio calls a fourth band alpha, which makes zeros invalid; see the test of alpha
        assert valid.all()
    assert pixels.dtype == dtype
    np.testing.assert_array_equal(pixels, truth[:, 11:21, 5:25])
    last, _ = raster.read(path, (count,), (0, 0, 40, 40))
    np.testing.assert_array_equal(last[0], truth[-1])


def test_outside_of_the_raster_is_zero_and_not_valid(tmp_path: Path) -> None:
    truth = _ramp(3, "uint8") + 1
    path = write_raster(tmp_path / "a.png", truth)
    pixels, valid = raster.read(path, (1, 2, 3), (-4, 35, 10, 10))
    assert valid.sum() == 6 * 5
    np.testing.assert_array_equal(pixels[:, :5, 4:], truth[:, 35:, :6])
    assert not pixels[:, :, :4].any()
    assert not raster.read(path, (1,), (100, 100, 8, 8))[1].any()


def test_nodata_value_alpha_internal_mask_and_nan_are_not_valid(tmp_path: Path) -> None:
    hole = disc(40, 40, 20, 20, 8)
    value = _ramp(3, "uint8") // 2 + 1
    value[:, hole] = 0
    by_value = write_raster(tmp_path / "value.tif", value, nodata=0)
    alpha = np.concatenate([value, np.where(hole, 0, 255).astype(np.uint8)[None]])
    by_alpha = write_raster(tmp_path / "alpha.png", alpha)
    by_mask = write_raster(tmp_path / "mask.tif", value, mask=~hole)
    nan = value.astype(np.float32)
    nan[1, hole] = np.nan
    by_nan = write_raster(tmp_path / "nan.tif", nan)
    for path in (by_value, by_alpha, by_mask, by_nan):
        _, valid = raster.read(path, (1, 2, 3), (4, 4, 30, 30))
        np.testing.assert_array_equal(valid, ~hole[4:34, 4:34], err_msg=path.name)


@pytest.mark.parametrize(("bands", "dtype"), [(5, "uint8"), (5, "uint16"), (3, "float32")])
def test_an_alpha_band_behind_any_number_of_bands_is_nodata(tmp_path: Path, bands: int, dtype: str) -> None:
    """Of multispectral orthomosaics, and of types that GDAL itself makes no mask of."""
    hole = disc(40, 40, 20, 20, 8)
    alpha = np.where(hole, 0, 255).astype(dtype)[None]
    path = write_raster(tmp_path / "a.tif", np.concatenate([_ramp(bands, dtype), alpha]))
    meaning = [ColorInterp.gray, *[ColorInterp.undefined] * (bands - 1)]
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*meaning, ColorInterp.alpha]
    assert not raster.info(path).all_valid
    _, valid = raster.read(path, (1, 2, 3), (4, 4, 30, 30))
    np.testing.assert_array_equal(valid, ~hole[4:34, 4:34])
    coarse = raster.valid_share_map(path, 40)
    np.testing.assert_array_equal(coarse > 0, ~hole)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*meaning, ColorInterp.undefined]
    assert raster.info(path).all_valid
    assert raster.read(path, (1, 2, 3), (4, 4, 30, 30))[1].all()


def test_a_vrt_that_calls_itself_tif_is_refused(tmp_path: Path) -> None:
    real = write_raster(tmp_path / "real.tif", _ramp(3, "uint8"))
    fake = tmp_path / "fake.tif"
    fake.write_text(
        '<VRTDataset rasterXSize="40" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{real}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(DataError, match="is no GeoTIFF, PNG or JPEG"):
        raster.info(fake)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/vsicurl/http://x/a.tif", "virtual path"),
        ("https://x.org/a.tif", "URL"),
        ("zip://a.zip!b.tif", "URL"),
        ("/etc/passwd", "leaves the images folder"),
        ("../a.tif", "leaves the images folder"),
        ("b/../../a.tif", "leaves the images folder"),
        ("C:\\a.tif", "leaves the images folder"),
        ("missing.tif", "is not a file"),
    ],
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        raster.resolve(tmp_path, name, "file_name")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, name: str) -> None:
    """GDAL reads the missing part of a PNG as whatever lies in memory; here it is refused."""
    path = write_raster(tmp_path / name, np.random.default_rng(0).integers(0, 255, (3, 200, 200)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        raster.read(path, (1, 2, 3), (0, 0, 200, 200))


def test_a_band_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set data\.bands to numbers from 1 to 3"):
        raster.read(write_raster(tmp_path / "b.png", _ramp(3, "uint8")), (1, 4), (0, 0, 4, 4))


def test_gsd_of_projected_and_geographic_rasters(tmp_path: Path) -> None:
    bands = _ramp(3, "uint8")
    metres = write_raster(tmp_path / "m.tif", bands, crs="EPSG:31984", transform=from_origin(478512, 8363720, 0.2, 0.1))
    assert raster.info(metres).gsd_m == pytest.approx(math.sqrt(0.02))
    feet = write_raster(tmp_path / "ft.tif", bands, crs="EPSG:2263", transform=from_origin(1e6, 2e5, 1.0, 1.0))
    assert raster.info(feet).gsd_m == pytest.approx(0.3048006096)
    step = 1e-6
    degrees = write_raster(tmp_path / "d.tif", bands, crs="EPSG:4326", transform=from_origin(-39.2, -14.8, step, step))
    # WGS 84: radius of the parallel, and of curvature in the meridian, at 14.8 degrees
    a, e2, sin = 6378137.0, 0.00669437999014, math.sin(math.radians(-14.80002))
    east = a * math.cos(math.radians(-14.80002)) / math.sqrt(1 - e2 * sin**2) * math.pi / 180
    north = a * (1 - e2) / (1 - e2 * sin**2) ** 1.5 * math.pi / 180
    assert raster.info(degrees).gsd_m == pytest.approx(step * math.sqrt(east * north), rel=1e-6)
    assert raster.info(write_raster(tmp_path / "none.tif", bands)).gsd_m is None


def test_a_coarser_grid_is_the_mean_of_what_it_covers(tmp_path: Path) -> None:
    """Whole pictures halved, then a window of the grid: bilinear for imagery, nearest for ids."""
    columns = np.tile(np.arange(80, dtype=np.float32), (80, 1))[None]
    path = write_raster(tmp_path / "a.tif", columns)
    pixels, valid = raster.read(path, (1,), (10, 4, 20, 20), grid_hw=(40, 40))
    assert valid.all()
    np.testing.assert_allclose(pixels[0, 5], 2 * (np.arange(10, 30) + 0.5) - 0.5, atol=1e-4)
    ids = write_raster(tmp_path / "ids.tif", (columns // 10 % 6).astype(np.uint8))
    found, _ = raster.read(ids, (1,), (0, 0, 40, 40), grid_hw=(40, 40), nearest=True)
    np.testing.assert_array_equal(found[0, 0], (np.arange(40) // 5) % 6)


def test_handles_are_few_and_never_shared_with_a_child(tmp_path: Path) -> None:
    paths = [write_raster(tmp_path / f"{i}.tif", _ramp(1, "uint8")) for i in range(raster.MAX_HANDLES + 4)]
    for path in paths:
        raster.info(path)
    assert len(raster._handles) == raster.MAX_HANDLES
    first = raster._open(paths[-1])
    assert raster._open(paths[-1]) is first
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        own = raster._open(paths[-1])
        os.write(writer, b"own" if own is not first and (own.read(1) == _ramp(1, "uint8")[0]).all() else b"shared")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"own"


def test_a_file_that_was_rewritten_is_opened_anew(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", _ramp(1, "uint8"))
    assert raster.info(path).width == 40
    write_raster(path, _ramp(1, "uint8", side=56))
    assert raster.info(path).width == 56
