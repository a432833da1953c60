"""How operating points are looked for: what `tune` can be told."""

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
