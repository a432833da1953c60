"""How widths are written as engine files: what `export` can be told."""

from dataclasses import dataclass
from typing import Literal

from slimdet.messages import check_choices

Format = Literal["onnx", "openvino"]


@dataclass(frozen=True)
class ExportSettings:
    """Which widths are written, and as what.

    Raises:
        ConfigError: no such format.
    """

    width: float | None = None  # None is all of the model's
    format: Format = "onnx"
    imgsz: int | None = None  # shorter side in pixels that images are resized to; None is the model's
    linked: bool = False  # ONNX files that use the bundle's weights file and have no weights of their own

    def __post_init__(self) -> None:
        check_choices(self)
