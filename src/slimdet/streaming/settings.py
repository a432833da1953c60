"""How a video is watched."""

from dataclasses import dataclass

from slimdet.errors import ConfigError
from slimdet.runtime.prediction import DetectSettings


@dataclass(frozen=True)
class VideoSettings(DetectSettings):
    """What decides how the frames of a video are looked at.

    Attributes:
        width: that runs where there is no budget.
        budget_ms: milliseconds from a frame to its boxes, in which 95 of 100 frames are done.
        fps: frames a second that are to be kept up with on average, reading, drawing and writing included. Of a live
            source without any budget: 25, as its own is not known.
        conf: least score of a detection.
        track: give objects ids that last from frame to frame.
        every: frames that one look lasts; boxes are carried over the others. None: with `fps` and `track` so many that
            most of the accuracy is left, else 1. A look that lasts k frames has k times the time that `fps` leaves.
        stride: only every so many-th frame of the source is taken.

    Raises:
        ConfigError: a number out of its range, or `every` without `track`.
    """

    budget_ms: float | None = None
    fps: float | None = None
    track: bool = False
    every: int | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("budget-ms", self.budget_ms), ("fps", self.fps)):
            if value is not None and not value > 0:
                raise ConfigError(f"--{name} {value} must be above 0")
        for name, number in (("every", self.every), ("stride", self.stride)):
            if number is not None and number < 1:
                raise ConfigError(f"--{name} {number} must be 1 or more")
        if self.every not in (None, 1) and not self.track:
            raise ConfigError(f"--every {self.every} carries boxes between looks, which needs --track")
        if self.budget_ms is not None and self.fps is not None:
            raise ConfigError("--budget-ms is for one frame, --fps for the whole on average: give one of them")
