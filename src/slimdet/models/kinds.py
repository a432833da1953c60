"""The one table of kinds: what a detector has, and what slimdet can do with it. It needs no torch.

A cell is true where the thing works and nothing that the detector finds is lost. Whoever cannot do something with every
kind asks `require` first, so that it is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimdet.errors import ConfigError
from slimdet.messages import listed

# What can be asked for, and how an error says it.
TASKS = {
    "slim": "slimmed",
    "save": "saved as a bundle",
    "run": "run by Runtime and 'slimdet predict', which give boxes and masks",
    "train": "trained or fine-tuned by 'slimdet train'",
    "distil": "distilled",
    "sort": "sorted as a whole",
    "calibrate": "calibrated by 'slimdet calibrate'",
    "validate": "validated, for boxes and masks are what is compared",
    "export": "exported",
    "draw": "drawn",
}


@dataclass(frozen=True)
class Kind:
    """A kind of detector: what it gives beside boxes, and which of `TASKS` are done for it.

    Attributes:
        name: how people call it.
        masks, keypoints: whether its detections have them; boxes, labels and scores all have.
    """

    name: str
    masks: bool = False
    keypoints: bool = False
    slim: bool = True
    save: bool = True
    run: bool = True
    train: bool = False
    distil: bool = False
    sort: bool = False
    calibrate: bool = True
    validate: bool = True
    export: bool = False
    draw: bool = True


_ALL = {"train": True, "distil": True, "sort": True, "export": True}
_NONE = dict.fromkeys(TASKS, False)
_ORIGINAL = {"calibrate": False}  # its own commands train it, at the widths that it has

# By torchvision's word for the class and for its builders, in lower case; a word comes before one that begins it.
TORCHVISION = {
    "fasterrcnn": Kind("Faster R-CNN", **_ALL),
    "maskrcnn": Kind("Mask R-CNN", masks=True, **_ALL),
    "keypointrcnn": Kind(
        "Keypoint R-CNN", keypoints=True, sort=True, run=False, calibrate=False, validate=False, draw=False
    ),
    "retinanet": Kind("RetinaNet"),
    "fcos": Kind("FCOS"),
    "ssdlite": Kind("SSDLite"),
    "ssd": Kind("SSD", **_NONE),
}
# By the original's word; its other types give boxes alone, as Faster R-CNN does.
ORIGINAL = {
    "FasterRCNN": Kind("original Faster R-CNN", **_ORIGINAL),
    "MaskRCNN": Kind("original Mask R-CNN", masks=True, **_ORIGINAL),
}
KINDS = (*TORCHVISION.values(), *ORIGINAL.values())


def kind_of(thing: Any) -> Kind:
    """The kind of a detector (a module; of a slimmable one its widest twin), or of a bundle's architecture description.

    What is in no row, as a network of the user's own, can be slimmed and no more; its name is that of its class.
    """
    description = thing if isinstance(thing, Mapping) else getattr(thing, "architecture", None) or None
    if not isinstance(description, Mapping):
        words = [_class_word(kind, thing) for kind in type(thing).__mro__ if kind.__module__.startswith("torchvision.")]
        return next((TORCHVISION[word] for word in words if word in TORCHVISION), _unknown(type(thing).__name__))
    builder = str(description.get("builder", "a detector of no builder"))
    if builder == "original":
        model = description.get("model")
        return ORIGINAL["MaskRCNN" if isinstance(model, Mapping) and model.get("mask_head") else "FasterRCNN"]
    word = builder.removeprefix("torchvision.").replace("_", "")
    return next((kind for start, kind in TORCHVISION.items() if word.startswith(start)), _unknown(builder))


def require(thing: Any, task: str, name: str = "") -> Kind:
    """The kind of a detector or of an architecture description, which `task` must be done for.

    Args:
        thing: as `kind_of` takes it.
        task: one of `TASKS`.
        name: what its user calls it, as the path of a bundle; the error begins with it.

    Raises:
        ConfigError: it is not; the error names the kind, what was asked for, and the kinds it is done for.
    """
    kind = kind_of(thing)
    if not getattr(kind, task):
        able = [other.name for other in KINDS if getattr(other, task)]
        where = f"{name}: " if name else ""
        raise ConfigError(f"{where}{kind.name} cannot be {TASKS[task]}; those that can: {listed(able, len(able))}")
    return kind


def without_background(found: Mapping[str, Any]) -> dict[str, Any]:
    """The detections of one image (tensors [N, ...] by name) without those of label 0.

    It is the background, as everywhere in torchvision; RetinaNet and FCOS have an output for it, which says something
    where they were not trained.
    """
    kept = found["labels"] != 0
    return {key: value[kept] for key, value in found.items()}


def _class_word(kind: type, detector: Any) -> str:
    """The class's name in lower case. torchvision's SSDLite is its SSD with another head."""
    lite = kind.__name__ == "SSD" and type(detector.head).__name__.startswith("SSDLite")
    return "ssdlite" if lite else kind.__name__.lower()


def _unknown(name: str) -> Kind:
    return Kind(f"{name:.80}", **_NONE | {"slim": True})
