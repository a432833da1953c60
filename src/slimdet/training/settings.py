"""What decides a training: its settings, its learning rate at each step, its widths at each step."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from slimdet.errors import ConfigError
from slimdet.widths import parse_widths

# By which power of the number of widths that use a weight its summed gradient is divided.
GRADIENTS = {"sum": 0.0, "root": 0.5, "mean": 1.0}


@dataclass(frozen=True)
class TrainSettings:
    """What decides a training; the defaults are the paper's 1x schedule, its learning rate scaled to the batch."""

    data: str
    model: str = "faster_rcnn"
    backbone: str = "resnet50"
    neck: str = "full"
    norm: str | None = None  # in neck and heads
    frozen_norms: bool = False
    weights: str = "imagenet"
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    scope: str = "detector"
    sampling: str = "all"  # or "sandwich", "range": see `sampled_widths`
    distill: float = 0.0
    distill_parts: tuple[str, ...] = ("features", "classes")
    balance: float = 0.0  # a width's losses count w ** -balance: 0 is the paper's plain sum
    gradients: str = "sum"  # of the widths, in weights that they share; or one of `GRADIENTS`
    narrow_start: float = 0.0  # part of the training after which the narrower widths join the widest
    sort: bool = False
    recalibrate: int | None = None  # training images whose statistics the norms get at the end; None: 512 for a range
    epochs: float = 12.0
    batch: int = 16
    lr: float | None = None  # 0.02 for 16 images a step
    schedule: str = "step"  # x 0.1 at 2/3 and 11/12 of the epochs, or "cosine"
    warmup: int = 500
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float = 35.0
    ema: float = 0.0
    augment: str = "default"
    imgsz: int | None = None
    bf16: bool = False
    device: str = "auto"
    seed: int = 0
    workers: int = 0
    save_every: float = 300.0  # seconds between checkpoints
    evaluate: bool = True  # at the end, every width, on the val split

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", parse_widths(self.widths))
        for name, low in (
            ("epochs", 0),
            ("batch", 1),
            ("warmup", 0),
            ("clip", 0),
            ("ema", 0),
            ("distill", 0),
            ("balance", 0),
            ("recalibrate", 0),
        ):
            if getattr(self, name) is None:
                continue
            if not getattr(self, name) >= low:
                raise ConfigError(f"--{name} {getattr(self, name)} is below {low}")
        if not 0 <= self.narrow_start < 1:
            raise ConfigError(f"--narrow-start {self.narrow_start} is not at least 0 and below 1")
        object.__setattr__(self, "distill_parts", tuple(self.distill_parts))
        choices = {
            "sampling": ("all", "sandwich", "range"),
            "gradients": tuple(GRADIENTS),
            "schedule": ("step", "cosine"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"--{name} {getattr(self, name)!r} is not one of {', '.join(allowed)}")

        if self.sampling == "range" and self.frozen_norms:
            raise ConfigError("--frozen-norms has no statistics for random widths; leave it out or list the widths")

    @property
    def norms(self) -> str:
        """What the norms of the widths share, as `slimdet.slim` takes it."""
        return "shared" if self.sampling == "range" else "own"

    @property
    def statistics_images(self) -> int:
        """Training images whose statistics the norms get at the end of training."""
        return (512 if self.sampling == "range" else 0) if self.recalibrate is None else self.recalibrate

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        return 0.02 * self.batch / 16 if self.lr is None else self.lr


def learning_rate(settings: TrainSettings, step: int, total: int) -> float:
    """The learning rate of step 0 .. total-1: linear warm-up from a third, then steps or a cosine down to zero."""
    warmup = min(settings.warmup, total // 5)
    factor = 1 - (1 - step / warmup) * (1 - 1 / 3) if step < warmup else 1.0
    if settings.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * step / total))
    else:
        factor *= 0.1 ** sum(step >= total * part for part in (8 / 12, 11 / 12))
    return settings.peak_lr * factor


def sampled_widths(
    widths: Sequence[float], sampling: str, draw: random.Random, between: Sequence[float] = ()
) -> list[float]:
    """The widths of one step, widest first, since it teaches the others.

    Args:
        widths: the model's, ascending.
        sampling: "all"; "sandwich": the widest, the narrowest and one random width between them; "range": the widest,
            the narrowest and two of `between` ("Universally Slimmable Networks", ICCV 2019, section 3.2), drawn in
            inverse proportion to their cost: neighbours differ more where they are narrow.
        draw: what is random.
        between: for "range", the widths to draw from.
    """
    if sampling == "range" and len(between) > 1:
        # Two different ones with weights 1 / width**2: the largest u ** (1 / weight) (Efraimidis and Spirakis, 2006).
        drawn = sorted(between, key=lambda width: draw.random() ** width**2)[-2:]
        return sorted([widths[-1], *drawn, widths[0]], reverse=True)
    if sampling == "sandwich" and len(widths) > 3:
        return [widths[-1], draw.choice(widths[1:-1]), widths[0]]
    return sorted(widths, reverse=True)
