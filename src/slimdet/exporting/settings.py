"""How widths are written as engine files: what `export` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slimdet.errors import ConfigError
from slimdet.messages import check_choices

Format = Literal["onnx", "openvino"]


@dataclass(frozen=True)
class ExportSettings:
    """Which widths are written, and as what.

    Attributes:
        width: None is all of the model's.
        format: kind of engine file.
        imgsz: shorter side in pixels that images are resized to; None is the model's.
        linked: ONNX files that use the bundle's weights file and have no weights of their own.
        int8: beside each file a second one, whose convolutions and linear layers compute in 8 bits.
        data: DATA.yaml: training images to calibrate these on, and val images that say what they cost.
        max_ap_drop: AP, in points of 100, that 8 bits may cost a width; None is 0.5, or 2 % of what it has if that is
            less.
        images: training images whose activations give the ranges of 8 bits.
        val_images: at most so many val images are compared on.
        seed: of the choice of both.

    Raises:
        ConfigError: no such format, a number that is too small, or `int8` without `data` or the reverse.
    """

    width: float | None = None
    format: Format = "onnx"
    imgsz: int | None = None
    linked: bool = False
    int8: bool = False
    data: Path | None = None
    max_ap_drop: float | None = None
    images: int = 64
    val_images: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        if self.int8 and self.data is None:
            raise ConfigError("--int8 needs --data DATA.yaml: images to calibrate on, and to measure what 8 bits cost")
        if self.data is not None and not self.int8:
            raise ConfigError(f"--data {self.data} goes with --int8; leave it out, or add --int8")
        for name, least in (("images", 1), ("val_images", 1), ("seed", 0), ("max_ap_drop", 0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ConfigError(f"--{name.replace('_', '-')} {value} must be {least} or more")
