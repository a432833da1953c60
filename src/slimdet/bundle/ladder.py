"""Operating points: at what a detector runs, chosen call by call, all of it served by one set of weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from slimdet.errors import BundleError, ConfigError
from slimdet.images.sides import LEAST
from slimdet.messages import check_choice

Precision = Literal["fp32", "int8", "bf16", "fp16"]


@dataclass(frozen=True)
class Point:
    """A width, an image size, a number of proposals and a precision.

    Attributes:
        width: a fraction of the widest, above 0 and at most 1.
        imgsz: shorter side that images are resized to, pixels; None is the model's.
        proposals: boxes that the second stage looks at, 1 or more; None is the model's number.
        precision: of the layers; None is the best that there is for the width.

    Raises:
        ConfigError: none of these.
    """

    width: float = 1.0
    imgsz: int | None = None
    proposals: int | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if not 0 < self.width <= 1:
            raise ConfigError(f"width {self.width} is not above 0 and at most 1")
        if self.imgsz is not None and self.imgsz < LEAST:
            raise ConfigError(f"--imgsz {self.imgsz} is too small; use {LEAST} or more")
        if self.proposals is not None and self.proposals < 1:
            raise ConfigError(f"--proposals {self.proposals} must be 1 or more")
        if self.precision is not None:
            check_choice("precision", self.precision, get_args(Precision))

    def __str__(self) -> str:
        """As "0.5 at 160 px, 50 proposals, int8"; what is left open is left out."""
        size = "" if self.imgsz is None else f" at {self.imgsz} px"
        proposals = "" if self.proposals is None else f", {self.proposals} proposals"
        return f"{self.width}{size}{proposals}" + (f", {self.precision}" if self.precision else "")

    @property
    def entry(self) -> dict[str, Any]:
        """As JSON holds it: {"width": 0.5, "imgsz": 160, ...}, without what is left open."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Point":
        """The point that `entry` holds.

        Raises:
            BundleError: it is none.
        """
        try:
            return cls(**entry)
        except (TypeError, ConfigError) as error:
            raise BundleError(f"{entry!r} is no operating point: {error}") from error
