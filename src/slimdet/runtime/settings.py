"""How detectors run: the engine, and what `predict` can be told."""

from dataclasses import dataclass
from typing import Literal

from slimdet.messages import check_choices

EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]


@dataclass(frozen=True)
class EngineSettings:
    """What runs a detector, as `slimdet.Runtime` takes it.

    Raises:
        ConfigError: no such engine.
    """

    engine: EngineName = "auto"  # onnxruntime where the model was exported, else torch
    device: str = "auto"
    threads: int | None = None  # of one run; None is the engine's choice
    imgsz: int | None = None  # pixels, for torch alone; None is the model's

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class PredictSettings(EngineSettings):
    """How objects are looked for in images."""

    width: float = 1.0
    conf: float = 0.25  # least score of a detection
    batch: int = 8  # images that are read at a time; those of one size run together
