"""How a detector is served."""

import os
from dataclasses import dataclass
from pathlib import Path

from slimdet.errors import ConfigError
from slimdet.runtime.engine import CONF, EngineName, EngineSettings

TOKEN = "SLIMDET_TOKEN"  # of the environment


@dataclass(frozen=True)
class ServeSettings:
    """Where the server listens, what it promises and what it runs on.

    Attributes:
        engine, device: as `slimdet.runtime.engine.EngineSettings` has them.
        threads: of one run; None is the engine's own choice.
        host: the address to listen on; others than this machine's own reach the server only if it is told so.
        port: 0 takes a free one.
        slo_ms: by when an answer is due where a request says nothing, in milliseconds after it is there.
        workers: processes that run the detector, each a request at a time.
        conf: least score of a detection where a request names none, 0..1.
        token_file: the file whose first line a request must carry as its bearer token; None takes the environment's
            SLIMDET_TOKEN, and where that is not set, there is none.

    Raises:
        ConfigError: a number that cannot be.
    """

    engine: EngineName = EngineSettings.engine
    device: str = EngineSettings.device
    threads: int | None = 1
    host: str = "127.0.0.1"
    port: int = 8000
    slo_ms: float = 200.0
    workers: int = 1
    conf: float = CONF
    token_file: Path | None = None

    def __post_init__(self) -> None:
        EngineSettings(self.engine, self.device, self.threads)  # checks them
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"--port {self.port} is not in 0..65535")
        if not self.slo_ms > 0:
            raise ConfigError(f"--slo-ms {self.slo_ms:g} must be above 0")
        if self.workers < 1:
            raise ConfigError(f"--workers {self.workers} must be 1 or more")
        if not 0 <= self.conf <= 1:
            raise ConfigError(f"--conf {self.conf:g} is not a score in 0..1, such as 0.25")

    def token(self) -> str | None:
        """The bearer token that requests must carry.

        Raises:
            ConfigError: its file cannot be read, or is empty.
        """
        if self.token_file is None:
            return os.environ.get(TOKEN) or None
        try:
            lines = self.token_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {self.token_file} cannot be read: {error}") from error
        if not lines or not lines[0].strip():
            raise ConfigError(f"--token-file {self.token_file} has no token in its first line")
        return lines[0].strip()
