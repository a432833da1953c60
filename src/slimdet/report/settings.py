"""How a report is made: what `val` and `profile` can be told."""

from dataclasses import dataclass

from slimdet.runtime.engine import EngineName, EngineSettings


@dataclass(frozen=True)
class ValSettings(EngineSettings):
    """What of a model is measured on a data set, and how; torch takes any model, exported or not."""

    engine: EngineName = "torch"
    width: float | None = None  # None is all of the model's
    workers: int = 0  # processes that read images


@dataclass(frozen=True)
class ProfileSettings(EngineSettings):
    """What measures the costs; `imgsz` is the side of the square picture."""

    repeats: int = 10  # timed runs of every width
