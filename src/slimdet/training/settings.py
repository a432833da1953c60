"""What decides a training: its settings, its learning rate at each step, its widths at each step."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import slimdet
from slimdet.errors import ConfigError
from slimdet.files import atomic_write
from slimdet.messages import check_choice, check_choices, listed
from slimdet.widths import WidthRange, parse_width, parse_widths

SETTINGS = "settings.json"  # in a run's folder
SIZE_STEP = 32  # pixels; feature maps of the coarsest level grow by a cell
STAGE_STEPS, STAGE_SPREAD = 16, 0.25  # widths that a stage may have, and how far it may be from the others' mean

# By which power of the number of widths that use a weight its summed gradient is divided.
REDUCTIONS = {"sum": 0.0, "root": 0.5, "mean": 1.0}

Detector = Literal["faster_rcnn", "mask_rcnn"]
Neck = Literal["full", "light"]
HeadNorm = Literal["none", "batch", "group"]
Suppression = Literal["class", "all"]
ScopeName = Literal["detector", "backbone"]
WidthSampling = Literal["all", "sandwich", "range", "stages"]
GradientReduction = Literal["sum", "root", "mean"]
Optimizer = Literal["sgd", "adamw"]
Teacher = Literal["widest", "start"]
Schedule = Literal["step", "cosine"]
Augment = Literal["none", "flip", "default", "strong", "mosaic"]
RecipeName = Literal["default", "paper", "fast"]


@dataclass(frozen=True)
class Usual:
    """What an optimizer gets where nothing is said: learning rate of 8 images, its power of the batch, weight decay."""

    lr: float
    growth: float
    decay: float


OPTIMIZERS: dict[str, Usual] = {"sgd": Usual(0.01, 1.0, 1e-4), "adamw": Usual(0.001, 0.5, 0.01)}


@dataclass(frozen=True)
class TrainSettings:
    """What decides a training, to the last value.

    The defaults are the paper's plain sum and 1x schedule, the learning rate scaled to the batch. Where settings are
    not handed over as a whole, `slimdet.training.recipes` makes them of what was asked for.

    Raises:
        ConfigError, WidthError: a value that cannot be used.
    """

    data: str = ""  # DATA.yaml
    recipe: RecipeName = "paper"  # a record: which one decided what was not asked for
    model: Detector = "faster_rcnn"
    backbone: str = "resnet50"
    neck: Neck = "full"
    head_norm: HeadNorm = "none"  # in pyramid and heads
    freeze_backbone_norm: bool = False
    nms: Suppression | None = None  # whose boxes a better one drops; None: the bundle's, else "class"
    weights: str = "imagenet"  # or "none", a file with the backbone's weights, or a bundle
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)  # or a WidthRange, kept as the widths that it lists
    scope: ScopeName = "detector"
    width_sampling: WidthSampling = "all"  # see `sampled_widths`
    distill: float = 0.0
    teacher: Teacher = "widest"  # or "start": the detector of `weights`, as it was, teaches all widths
    distill_parts: tuple[str, ...] = ("features", "classes")
    loss_exponent: float = 0.0  # a width's losses count w ** -loss_exponent: 0 is the paper's plain sum
    gradient_reduction: GradientReduction = "sum"  # of the widths, in weights that they share: see `REDUCTIONS`
    widest_only: float = 0.0  # part of the training, from its start, in which the widest alone is trained
    sort: bool = False
    recalibrate: int | None = None  # training images whose statistics the norms get at the end; None: 512 for a range
    epochs: float = 12.0
    batch: int = 16
    accumulate: int = 1  # parts in which a batch is computed, one after another
    optimizer: Optimizer = "sgd"
    lr: float | None = None  # None: see `OPTIMIZERS`
    schedule: Schedule = "step"  # x 0.1 at 2/3 and 11/12 of the epochs, or a cosine
    warmup: int = 500
    momentum: float = 0.9  # of AdamW: its first beta
    weight_decay: float | None = None  # None: see `OPTIMIZERS`
    clip: float = 35.0
    ema: float = 0.0
    augment: Augment = "flip"  # see `slimdet.data.transforms.augmentation`
    imgsz: int | tuple[int, int] | None = None  # shorter side; a range: see `sampled_sizes`; None: the neck's
    bf16: bool = False
    compile: bool = False  # the backbone of every width, by torch.compile
    checkpoint_activations: bool = False  # less memory, longer: see `recomputed_backbone`
    device: str = "auto"
    seed: int = 0
    workers: int = 0
    threads: int | None = None  # that compute; None: torch's choice
    save_every: float = 300.0  # seconds between checkpoints
    evaluate: bool = True  # on the val split: at the end every width, on the way those of `val_widths`
    val_every: int = 1  # epochs between validations; 0: at the end alone
    val_widths: tuple[float, ...] | None = (1.0,)  # None: all
    patience: int = 0  # validations in a row without a better one that end the training; 0: none do
    check: bool = True  # decode all images before the first step, of a set that is not too large for it

    def __post_init__(self) -> None:
        if isinstance(self.widths, WidthRange):
            sampling = "stages" if self.width_sampling == "stages" else "range"
            self._set(widths=self.widths.listed, width_sampling=sampling)
        self._set(data=str(self.data), weights=str(self.weights), widths=parse_widths(self.widths))
        self._set(distill_parts=tuple(self.distill_parts))
        check_choices(self)
        if self.nms is not None:
            check_choice("--nms", self.nms, get_args(Suppression))
        validated = self.widths if self.val_widths is None else tuple(sorted(map(parse_width, self.val_widths)))
        if not set(validated) <= set(self.widths):
            raise ConfigError(f"--val-widths {listed(list(map(str, validated)))}: trained are {self.widths}")
        self._set(val_widths=validated)
        for name, low in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ConfigError(f"--{name.replace('_', '-')} {value} is below {low}")
        if self.patience and not (self.evaluate and self.val_every):
            raise ConfigError(f"--patience {self.patience} needs validations: no --no-evaluate, no --val-every 0")
        if self.accumulate > self.batch:
            raise ConfigError(f"--accumulate {self.accumulate} makes more parts than --batch {self.batch} has images")
        if not 0 <= self.widest_only < 1:
            raise ConfigError(f"--widest-only {self.widest_only} is not at least 0 and below 1")
        if self.compile and self.checkpoint_activations:
            raise ConfigError("--compile does not go with --checkpoint-activations; leave one of them out")
        if isinstance(self.imgsz, list | tuple):
            self._set(imgsz=_size_range(self.imgsz))
            if self.distill and "rpn" in self.distill_parts:
                raise ConfigError("--distill-parts rpn needs one image size, not a range of --imgsz; leave rpn out")
        if self.teacher == "start" and not self.distill:
            raise ConfigError("--teacher start teaches nothing with --distill 0; say how much, as --distill 2")
        if self.width_sampling == "stages" and self.head_norm == "group":
            raise ConfigError("--width-sampling stages: --head-norm group fits few widths; take batch or none")
        if self.any_width and self.freeze_backbone_norm:
            raise ConfigError(
                "--freeze-backbone-norm has no statistics for random widths; leave it out or list the widths"
            )

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def any_width(self) -> bool:
        """Whether widths are trained that are not listed, and get statistics when the weights are there."""
        return self.width_sampling in ("range", "stages")

    @property
    def norm_sharing(self) -> str:
        """What the norms of the widths share, as `slimdet.slim` takes it."""
        return "shared" if self.any_width else "own"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Shorter sides that images are trained at, ascending; empty where the detector has one size."""
        if not isinstance(self.imgsz, tuple):
            return ()
        low, high = self.imgsz
        return (low, *range(low + SIZE_STEP - low % SIZE_STEP, high, SIZE_STEP), high)

    @property
    def largest_size(self) -> int | None:
        """The shorter side that the model is built for; None for the neck's own."""
        return self.imgsz[1] if isinstance(self.imgsz, tuple) else self.imgsz

    @property
    def statistics_images(self) -> int:
        """Training images whose statistics the norms get at the end of training."""
        return (512 if self.any_width else 0) if self.recalibrate is None else self.recalibrate

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        usual = OPTIMIZERS[self.optimizer]
        return float(f"{usual.lr * (self.batch / 8) ** usual.growth:.3g}") if self.lr is None else self.lr

    @property
    def decay(self) -> float:
        """The weight decay."""
        return OPTIMIZERS[self.optimizer].decay if self.weight_decay is None else self.weight_decay


def _size_range(sides: Sequence[int]) -> tuple[int, int]:
    low, high = sides if len(sides) == 2 else (0, 0)
    if not 32 <= low < high:
        raise ConfigError(f"--imgsz {sides} is no range of shorter sides from 32 pixels on, as 128-256")
    return int(low), int(high)


def write_settings(folder: Path, settings: TrainSettings) -> None:
    """Say in the run's folder what is trained, and by which version."""
    with atomic_write(folder / SETTINGS) as temporary:
        temporary.write_text(json.dumps({"slimdet": slimdet.__version__, **asdict(settings)}, indent=2) + "\n")


_LEAST = {
    "epochs": 0,
    "batch": 1,
    "accumulate": 1,
    "warmup": 0,
    "clip": 0,
    "ema": 0,
    "weight_decay": 0,
    "distill": 0,
    "loss_exponent": 0,
    "recalibrate": 0,
    "val_every": 0,
    "patience": 0,
    "threads": 1,
}


@dataclass(frozen=True)
class CalibrateSettings:
    """How a width gets its statistics."""

    plan: Path | None = None  # a JSON file of widths by stage, for `Slimmable.add`
    images: int = 512  # training images to collect from
    batch: int = 16  # images that are normalised together
    device: str = "auto"
    seed: int = 0  # of the choice of images


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
    widths: Sequence[float], sampling: WidthSampling, draw: random.Random, between: Sequence[float] = ()
) -> list[float]:
    """The widths of one step, widest first, since it teaches the others.

    Args:
        widths: the model's, ascending.
        sampling: "all"; "sandwich": the widest, the narrowest and one random width between them; "range": the widest,
            the narrowest and two of `between` ("Universally Slimmable Networks", ICCV 2019, section 3.2), drawn in
            inverse proportion to their cost: neighbours differ more where they are narrow; "stages": the same, and
            each of the two stands for widths of its stages that `sampled_plan` draws about it.
        draw: what is random.
        between: for "range" and "stages", the widths to draw from.
    """
    if sampling in ("range", "stages") and len(between) > 1:
        # Two different ones with weights 1 / width**2: the largest u ** (1 / weight) (Efraimidis and Spirakis, 2006).
        drawn = sorted(between, key=lambda width: draw.random() ** width**2)[-2:]
        return sorted([widths[-1], *drawn, widths[0]], reverse=True)
    if sampling == "sandwich" and len(widths) > 3:
        return [widths[-1], draw.choice(widths[1:-1]), widths[0]]
    return sorted(widths, reverse=True)


def sampled_plan(
    stages: Sequence[Sequence[str]], width: float, narrowest: float, draw: random.Random
) -> dict[str, float]:
    """Widths of a detector's stages, as a plan has them: each within `STAGE_SPREAD` of `width`, apart from the others.

    Nets that were trained at equal widths alone are poor at unequal ones (slimmable_networks#27); "Once-for-All"
    (arXiv 1908.09791, section 3.3) draws the width of each layer by itself.

    Args:
        stages: the names of each one's layers, as `slimdet.models.stages.stages` finds them.
        width, narrowest: what they are drawn about, and the least that they may be.
        draw: what is random.
    """
    steps = [step / STAGE_STEPS for step in range(1, STAGE_STEPS + 1)]
    near = [step for step in steps if step >= narrowest and abs(step - width) <= STAGE_SPREAD]
    return {name: chosen for names in stages for chosen in [draw.choice(near)] for name in names}


def sampled_sizes(settings: TrainSettings, widths: Sequence[float], draw: random.Random) -> list[int]:
    """The image size of each of the step's widths: the largest for the widest, a random one for every other.

    "MutualNet" (ECCV 2020, arXiv 1909.12978, section 3.2): one set of weights learns to serve width x resolution, and
    the widest at the largest size teaches. Empty where the detector has one size.
    """
    sizes = settings.sizes
    return [sizes[-1] if width == 1.0 else draw.choice(sizes) for width in widths] if sizes else []
