"""What `benchmark` can be told."""

from dataclasses import dataclass
from typing import Literal, get_args

from slimdet.benchmarking.contract import ACCURACIES, LATENCIES, Contract
from slimdet.bundle.ladder import Precision
from slimdet.errors import ConfigError
from slimdet.messages import check_choice, check_choices
from slimdet.runtime.engine import EngineName, EngineSettings

Scenario = Literal["single-stream", "server", "offline"]
SCENARIOS = get_args(Scenario)


@dataclass(frozen=True)
class BenchmarkSettings:
    """Which points are measured, and how.

    Attributes:
        engine, device, threads: as `slimdet.runtime.engine.EngineSettings` has them.
        widths, imgsz, proposals: every combination of them is a point; what is None is all widths, the model's size
            and its number of proposals. Where none of them nor `precision` is given, the points are the bundle's
            ladder, if it has one.
        precision: of the layers; None is the best that was measured for each width.
        scenario: how images come, as `slimdet.benchmarking.scenarios` has them; one or several.
        rate: images in a second that arrive at a server.
        contract: what one row is to keep, as "ap>=0.30,p90_ms<=40".
        images: of val, drawn at random, that AP is measured on; None is all.
        repeats: timed images of each point.
        seed: of the order of the images and of their arrivals.

    Raises:
        ConfigError: a number that is too small, a scenario that there is not, a malformed contract.
    """

    engine: EngineName = EngineSettings.engine
    device: str = EngineSettings.device
    threads: int | None = EngineSettings.threads
    widths: tuple[float, ...] | None = None
    imgsz: tuple[int, ...] | None = None
    proposals: tuple[int, ...] | None = None
    precision: Precision | None = None
    scenario: tuple[Scenario, ...] = ("single-stream",)
    rate: float | None = None
    contract: str | None = None
    images: int | None = None
    repeats: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("widths", "imgsz", "proposals", "scenario"):
            if getattr(self, name) == ():
                raise ConfigError(f"--{name} names none; leave it out for the usual")
        for one in self.scenario:
            check_choice("--scenario", one, SCENARIOS)
        for name, least in (("images", 1), ("repeats", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name} {value} must be {least} or more")
        if ("server" in self.scenario) != (self.rate is not None):
            raise ConfigError("--scenario server and --rate, images that arrive in a second, go together")
        if self.rate is not None and not self.rate > 0:
            raise ConfigError(f"--rate {self.rate:g} must be above 0")
        if self.terms and set(LATENCIES) & self.terms.metrics and set(self.scenario) == {"offline"}:
            raise ConfigError(f"--contract {self.contract!r}: --scenario offline has no latencies; use images_per_s")

    @property
    def terms(self) -> Contract | None:
        """The contract, read."""
        return None if self.contract is None else Contract.of(self.contract)

    def check_measurable(self, data: object) -> None:
        """Make sure that what the contract asks for will be measured.

        Raises:
            ConfigError: it asks for an accuracy, or images are chosen, and there is no data.
        """
        if data is None and self.terms and (wanted := self.terms.metrics & set(ACCURACIES)):
            raise ConfigError(f"--contract {self.contract!r}: {min(wanted)} is measured on --data DATA.yaml; give it")
        if data is None and self.images is not None:
            raise ConfigError(f"--images {self.images} are of --data DATA.yaml; give it, or leave them out")
