"""Named recipes: what a training does about everything that it was not told.

`RECIPES` is the data, `by_recipe` the rules that follow the number of images and steps and the device. The recipe
"paper" has none of either: it is the defaults of `TrainSettings`.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from slimdet.devices import choose_device
from slimdet.models.kinds import kind_of
from slimdet.training.own import Own
from slimdet.training.settings import OPTIMIZERS, RecipeName, TrainSettings
from slimdet.training.start import is_bundle

# What a recipe decides where it was not asked for, in the order in which it is told.
DECIDES = (
    *("backbone", "neck", "imgsz", "head_norm", "sort", "width_sampling", "distill", "distill_parts"),
    *("gradient_reduction", "widest_only", "batch", "optimizer", "lr", "weight_decay"),
    *("warmup", "schedule", "ema", "epochs", "augment"),
)
BUILT = ("backbone", "neck", "imgsz", "head_norm", "sort")  # what a detector that is there already has
PARTS: dict[bool, dict[str, Any]] = {  # of the detector, by whether the device is a GPU of NVIDIA's
    False: {"backbone": "mobilenet_v2", "neck": "light"},
    True: {"backbone": "resnet50", "neck": "full"},
}
BATCH = {False: 8, True: 16}
GB_PER_IMAGE = 2.5  # of a GPU's memory: ResNet-50, the full neck, 800 pixels
MOST_EPOCHS = 100
WARMUP = 500  # steps, or a fifth of the training where that is less
LONG = 2000  # steps: from so many on SGD, and
LATE = 0.3  # the first part, in which the widest is trained alone

logger = logging.getLogger("slimdet")


@dataclass(frozen=True)
class Recipe:
    """What decides a training.

    Attributes:
        settings: fields of `TrainSettings`, the same in every training.
        lr: peak learning rate of SGD for a step of 8 images; it grows with the batch.
        images: to be seen in all, by whether the device is a GPU.
        epochs: at least, likewise.
    """

    settings: Mapping[str, Any]
    lr: float
    images: Mapping[bool, int]
    epochs: Mapping[bool, int]


_TAUGHT = {
    "head_norm": "batch",
    "sort": True,
    "distill": 2.0,
    "gradient_reduction": "root",
    "schedule": "cosine",
    "augment": "default",
}
RECIPES: dict[str, Recipe] = {
    "default": Recipe(_TAUGHT, lr=0.02, images={False: 4500, True: 28800}, epochs={False: 6, True: 12}),
    "fast": Recipe(
        _TAUGHT | PARTS[False] | {"imgsz": 160, "width_sampling": "sandwich"},
        lr=0.02,
        images={False: 2400, True: 2400},
        epochs={False: 2, True: 2},
    ),
}


@dataclass(frozen=True)
class Task:
    """What a recipe goes by.

    Attributes:
        images: number of images to train on.
        gpu: whether the device is one of NVIDIA's, and how many GB of memory it has.
        processes: that train together.
        ready: the detector is there already: a bundle's, or one that was handed over. Its parts are not chosen.
        masks, distil: whether the detector has masks, and can be taught.
    """

    images: int
    gpu: bool = False
    memory_gb: float = 0.0
    processes: int = 1
    ready: bool = False
    masks: bool = False
    distil: bool = True


def task_of(asked: TrainSettings, own: Own, dataset: Any, processes: int = 1) -> Task:
    """What a training on `dataset` is about, as far as a recipe goes by it."""
    device = choose_device(asked.device)
    gpu = device.type == "cuda"
    kind = kind_of({"builder": asked.model} if own.detector is None else own.detector)
    return Task(
        images=len(dataset),
        gpu=gpu,
        memory_gb=torch.cuda.get_device_properties(device).total_memory / 2**30 if gpu else 0.0,
        processes=processes,
        ready=own.detector is not None or is_bundle(asked.weights),
        masks=kind.masks,
        distil=kind.distil,
    )


def by_recipe(name: RecipeName, task: Task, asked: Mapping[str, Any]) -> TrainSettings:
    """The settings of a training: what was asked for, and for the rest what the recipe says.

    Args:
        name: of `RECIPES`, or "paper".
        task: what it goes by.
        asked: fields of `TrainSettings`; one of `DECIDES` that is None was not asked for.

    Raises:
        ConfigError, WidthError: as `TrainSettings`.
    """
    found: dict[str, Any] = {key: value for key, value in asked.items() if value is not None or key not in DECIDES}
    found["recipe"] = name
    if name not in RECIPES:
        return TrainSettings(**found)
    recipe = RECIPES[name]
    if "backbone" not in found and not (task.gpu or task.ready):
        logger.info("no --backbone was given: %s, which a CPU can train", PARTS[False]["backbone"])
    found = _of_detector(recipe, task) | found
    batch = found.setdefault("batch", _batch(task))
    epochs = found.setdefault("epochs", _epochs(recipe, task))
    steps = max(1, round(math.ceil(task.images / batch) * epochs))
    chosen = "optimizer" not in found
    usual = "sgd" if steps >= LONG or task.gpu else "adamw"  # on a GPU, with its larger backbone, nothing was compared
    if found.setdefault("optimizer", usual) == "sgd":
        found.setdefault("lr", recipe.lr * batch / 8)
    elif chosen and found.get("lr", 0) > 10 * OPTIMIZERS["adamw"].lr:
        logger.warning("--lr %g is a rate for SGD, and this recipe takes AdamW; add --optimizer sgd", found["lr"])
    found.setdefault("warmup", min(WARMUP, steps // 5))
    found.setdefault("widest_only", LATE if steps >= LONG else 0.0)
    found.setdefault("ema", round(min(max(1 - 10 / steps, 0.0), 0.9998), 4))  # the mean of a tenth of the training
    return TrainSettings(**found)


def as_flags(settings: TrainSettings, ready: bool = False) -> list[str]:
    """What a recipe decides, and the values that it has, as one would write them on the command line.

    Args:
        settings: of the training.
        ready: leave out how a detector is built, for it was handed over.
    """
    names = [name for name in DECIDES if not (ready and name in BUILT)]
    return [_flag(name, getattr(settings, name)) for name in names if getattr(settings, name) is not None]


def _flag(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    if isinstance(value, tuple):
        return f"--{flag} " + ("-" if name == "imgsz" else ",").join(map(str, value))
    return f"--{flag} {value:g}" if isinstance(value, float) else f"--{flag} {value}"


def _of_detector(recipe: Recipe, task: Task) -> dict[str, Any]:
    """What does not follow the number of steps."""
    found = PARTS[task.gpu] | dict(recipe.settings)
    if task.masks:
        found["distill_parts"] = (*TrainSettings.distill_parts, "masks")
    if not task.distil:
        found["distill"] = 0.0
    if task.ready:
        found = {key: value for key, value in found.items() if key not in BUILT}
    return found


def _batch(task: Task) -> int:
    """Images of a step: what fits into a GPU's memory, as many for each process."""
    batch = BATCH[task.gpu]
    if task.gpu:
        batch = min(batch, 2 ** int(math.log2(max(task.memory_gb / GB_PER_IMAGE, 1))))
    return math.ceil(batch / task.processes) * task.processes


def _epochs(recipe: Recipe, task: Task) -> float:
    """Passes over the images: a small set is seen often, so that there are steps enough to learn from it."""
    often = math.ceil(recipe.images[task.gpu] / task.images)
    return float(max(recipe.epochs[task.gpu], min(often, MOST_EPOCHS)))
