"""The section `data`: which pictures, and how windows are cut from them and changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cabruca.config.base import Section, Share, TileSize


class AugmentationConfig(Section):
    enabled: bool = True  # false: windows are only placed at random, never changed
    random_flip: Share = 0.5  # probability of each of the two flips; quarter turns come with it
    random_rotate: Share = 0.3  # probability of a free rotation, any angle up to rotate_degrees
    rotate_degrees: NonNegativeFloat = 15.0  # largest free rotation, degrees
    random_scale: Share = 0.3  # probability of a zoom within scale_range
    scale_range: tuple[PositiveFloat, PositiveFloat] = (0.8, 1.25)  # smallest and largest zoom
    brightness_contrast: Share = 0.4  # probability of a change of brightness and contrast
    brightness_contrast_limit: Share = 0.2  # largest relative change
    random_crop: bool = False  # true: part of the windows is cut smaller and enlarged to tile_size

    @model_validator(mode="after")
    def _check(self) -> AugmentationConfig:
        low, high = self.scale_range
        if low > high:
            raise ValueError(f"scale_range begins with {low} and ends with {high}; write [{high}, {low}]")
        return self


class DataConfig(Section):
    train_dir: str = "data/train"  # images folder; file_name of a COCO file is relative to it
    val_dir: str = "data/val"  # images folder of validation
    test_dir: str = "data/test"  # images folder of the held-out test
    train_annotations: str = "data/annotations/train.json"  # COCO
    val_annotations: str = "data/annotations/val.json"  # COCO
    test_annotations: str = "data/annotations/test.json"  # COCO; where set or there: a run ends with a test; "": none
    batch_size: PositiveInt = 4  # pictures in one forward pass, over all workers
    num_workers: NonNegativeInt | Literal["auto"] | None = "auto"  # loader processes; auto: chosen from the cores
    pin_memory: bool | Literal["auto"] | None = "auto"  # auto: on CUDA
    tile_size: TileSize = 512  # side of a training window, px
    overlap: NonNegativeInt = 64  # px, of validation and prediction grids
    category_map: dict[str, str] = Field(default_factory=dict)  # dataset category -> class name, or ignore
    bands: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 3)  # 1-based raster bands, in network order
    scale: PositiveFloat | None = None  # pixel values are divided by it; None: 255 for uint8, 65535 for uint16, 1 else
    mean: tuple[float, ...] | None = None  # per band after scaling; None: measured on training windows
    std: tuple[PositiveFloat, ...] | None = None  # per band after scaling; None: measured
    target_gsd_m: PositiveFloat | None = None  # windows are resampled to it at read; None: native
    windows_per_epoch: PositiveInt | Literal["auto"] = "auto"  # auto: sum of ceil(labelled px / tile_size^2)
    min_visible_share: Share = 0.3  # a crown cut by a window's edge is kept while this share of it is left
    cache_mb: NonNegativeInt = 512  # decoded small pictures kept in memory, per loading process
    augmentation: AugmentationConfig = AugmentationConfig()

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.overlap >= self.tile_size:
            raise ValueError(
                f"overlap {self.overlap} is not smaller than tile_size {self.tile_size}; use {self.tile_size // 8}"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.bands):
                raise ValueError(f"{name} has {len(values)} values and bands has {len(self.bands)}; give one a band")
        return self
