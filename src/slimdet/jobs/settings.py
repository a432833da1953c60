"""How a job looks for objects."""

from dataclasses import dataclass
from datetime import datetime

from slimdet.errors import ConfigError
from slimdet.runtime.prediction import PredictSettings


@dataclass(frozen=True)
class JobSettings(PredictSettings):
    """What decides how many images are looked at, where, and by when they are done.

    Attributes:
        threads: of one worker, which takes as many of Ray's CPUs; the cores are better used by several workers.
        deadline: when all images are to be done; the points are chosen by it, and `width`, `imgsz`, `proposals` and
            `precision` count no more. Without a time zone it is this machine's.
        workers: processes; None is as many as the cluster has room for at the start.
        block: images of one part file. What a worker that is killed has to do again is one block.

    Raises:
        ConfigError: a number that is too small.
    """

    threads: int | None = 1
    deadline: datetime | None = None
    workers: int | None = None
    block: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, number in (("workers", self.workers), ("block", self.block), ("batch", self.batch)):
            if number is not None and number < 1:
                raise ConfigError(f"--{name} {number} must be 1 or more")
