"""How operating points, and widths of stages, are looked for: what `tune` and `search` can be told."""

from dataclasses import dataclass

from slimdet.errors import ConfigError
from slimdet.messages import check_choices
from slimdet.runtime.engine import EngineName, EngineSettings


@dataclass(frozen=True)
class TuneSettings:
    """Which points are tried, on how many images, and what runs them.

    Attributes:
        engine, device, threads: as `slimdet.runtime.engine.EngineSettings` has them; latencies are true of them alone.
        widths: None is all of the model's.
        imgsz: shorter sides in pixels; None is about five from half of the model's to its own.
        proposals: numbers of boxes that the second stage looks at; None is some up to the model's own.
        images: of val, drawn at random, that the ladder is measured on; None is all.
        repeats: timed runs of each point that stays to the end.
        budget_ms: milliseconds for an image, for which the one point to use is told.
        seed: of the order of the images and of the resamples.

    Raises:
        ConfigError: a number that is too small, or nothing to try.
    """

    engine: EngineName = EngineSettings.engine
    device: str = EngineSettings.device
    threads: int | None = EngineSettings.threads
    widths: tuple[float, ...] | None = None
    imgsz: tuple[int, ...] | None = None
    proposals: tuple[int, ...] | None = None
    images: int | None = None
    repeats: int = 30
    budget_ms: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("widths", "imgsz", "proposals"):
            if getattr(self, name) == ():
                raise ConfigError(f"--{name} names none; leave it out for the usual ones")
        for name, least in (("images", 1), ("repeats", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name} {value} must be {least} or more")
        if self.budget_ms is not None and not self.budget_ms > 0:
            raise ConfigError(f"--budget-ms {self.budget_ms:g} must be above 0")


@dataclass(frozen=True)
class SearchSettings:
    """For which latency widths of stages are looked for, and how.

    Attributes:
        budget_ms: milliseconds for an image, which the plan is to keep.
        engine, device, threads: as `slimdet.runtime.engine.EngineSettings` has them; latencies are true of them alone.
        trials: plans that are tried.
        images: of val, drawn at random, that each is tried on; the best one is measured on all.
        statistics: training images that each plan's norms get their statistics from; the best one gets 512.
        repeats: timed runs of each plan.
        name: the number that the best plan gets as a width; None is the mean of its stages, or one near to it.
        seed: of the choice of images and of what the search draws.

    Raises:
        ConfigError: a number that is too small.
    """

    budget_ms: float
    engine: EngineName = EngineSettings.engine
    device: str = EngineSettings.device
    threads: int | None = EngineSettings.threads
    trials: int = 24
    images: int = 200
    statistics: int = 64
    repeats: int = 10
    name: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.budget_ms > 0:
            raise ConfigError(f"--budget-ms {self.budget_ms:g} must be above 0")
        for name, least in (("trials", 1), ("images", 1), ("statistics", 2), ("repeats", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} {getattr(self, name)} must be {least} or more")
