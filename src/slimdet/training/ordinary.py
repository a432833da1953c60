"""Ordinary detectors, from wherever they come, to be made slimmable: bundles of one width, what `slimdet extract`
wrote, state dicts of torchvision's detectors, and torchvision's own COCO weights.

Letters: K classes, without the background.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import detection, get_model, get_model_weights, list_models

from slimdet.bundle import manifest, store
from slimdet.bundle.extraction import DESCRIPTION, STATE
from slimdet.errors import ConfigError, WeightsError
from slimdet.messages import did_you_mean, first_line, listed
from slimdet.models import architecture
from slimdet.models.kinds import kind_of, require
from slimdet.models.weights import fit, read_state_dict
from slimdet.training.start import CLASS_LAYERS

BACKGROUND = "__background__"  # torchvision's first class
NO_CLASS = "N/A"  # ids of COCO that no class has


@dataclass(frozen=True)
class Ordinary:
    """A trained detector of one width.

    Attributes:
        detector: in eval mode.
        classes: names of the labels 1..K; None where nobody wrote them down.
        source: what it is, for messages.
    """

    detector: nn.Module
    classes: tuple[str, ...] | None
    source: str

    def of_classes(self, classes: Sequence[str]) -> nn.Module:
        """The detector with its class outputs in the order of a data set's classes.

        Raises:
            ConfigError: it was not trained for just these classes.
        """
        description = architecture.describe(self.detector)
        known = self.classes
        if known is None:
            if description["num_classes"] == len(classes) + 1:
                return self.detector
            raise ConfigError(
                f"{self.source} has outputs for {description['num_classes'] - 1} classes, and the data {len(classes)}: "
                f"{listed(classes)}"
            )
        named = [name for name in known if name != NO_CLASS]
        if sorted(named) != sorted(classes):
            lacking, other = sorted(set(named) - set(classes)), sorted(set(classes) - set(named))
            parts = [f"the data lacks {listed(lacking)}"] if lacking else []
            parts += [f"it has {listed(other)} too"] if other else []
            raise ConfigError(
                f"{self.source} was trained for {len(named)} classes and teaches just these: {', '.join(parts)}; for "
                "other classes fine-tune it with 'slimdet train --weights'"
            )
        rows = torch.tensor([0, *(1 + known.index(name) for name in classes)])
        state = self.detector.state_dict()
        for key in filter(CLASS_LAYERS.match, state):
            by_class = state[key].unflatten(0, (len(known) + 1, -1))  # of box codes, four rows a class
            state[key] = by_class[rows].flatten(0, 1)
        made = architecture.build(description | {"num_classes": len(classes) + 1})
        made.load_state_dict(state)
        return made.eval()


def read_ordinary(source: str | Path, kind: str | None = None) -> Ordinary:
    """Read a detector of one width that `slimdet train` could train further.

    Args:
        source: a bundle of one width, a folder that `slimdet extract` wrote of width 1.0, a state dict (.pth, .pt,
            .safetensors) of one of torchvision's detectors, or the name of such a detector, whose COCO weights
            torchvision downloads.
        kind: the name, of a state dict: "fasterrcnn_resnet50_fpn", say.

    Raises:
        ConfigError: it is none of these, has several widths, or a kind that cannot be trained.
        BundleError, WeightsError: it is damaged, does not fit, or cannot be had.
    """
    path = Path(source)
    if kind is not None and not path.is_file():
        raise ConfigError(f"--detector {kind} says what a file of weights is of; {source} is none")
    if (path / store.MODEL).is_file():
        read = _bundle(path)
    elif (path / DESCRIPTION).is_file():
        read = _extracted(path)
    elif path.is_file():
        read = _state(path, kind)
    else:
        read = _downloaded(str(source))
    require(read.detector, "train", str(source))
    read.detector.eval()
    return read


def names() -> list[str]:
    """torchvision's names of the detectors that can be trained."""
    return [name for name in list_models(module=detection) if kind_of({"builder": f"torchvision.{name}"}).train]


def _bundle(path: Path) -> Ordinary:
    described = manifest.read(path)
    if len(described.widths) > 1:
        raise ConfigError(f"{path} is slimmable already: it has the widths {listed(list(map(str, described.widths)))}")
    return Ordinary(store.load(path).extract(1.0), described.classes, str(path))


def _extracted(folder: Path) -> Ordinary:
    try:
        document = json.loads((folder / DESCRIPTION).read_text())
        description, classes = document["architecture"], tuple(document["classes"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder / DESCRIPTION} does not say what the detector is; write it anew with 'slimdet extract'"
        ) from error
    if description is None:
        raise ConfigError(
            f"{folder} holds width {document.get('width')} of a detector, and no builder makes one so narrow; take "
            "'slimdet extract --width 1.0'"
        )
    detector = architecture.build(description)
    state = read_state_dict(folder / STATE)
    fit(detector, state, set(), f"{folder / STATE} does not fit", "write it anew with 'slimdet extract'")
    return Ordinary(detector, classes, str(folder))


def _state(file: Path, kind: str | None) -> Ordinary:
    if kind is None:
        raise ConfigError(
            f"{file} does not say what detector it is of; add --detector with its builder's name in torchvision, as "
            "--detector fasterrcnn_resnet50_fpn"
        )
    _check_name(kind)
    state = read_state_dict(file)
    outputs = state.get("roi_heads.box_predictor.cls_score.weight")
    if outputs is None:
        raise WeightsError(f"{file} holds no detector of kind {kind}: it has no roi_heads.box_predictor.cls_score")
    classes = len(outputs)
    description = {
        "builder": f"torchvision.{kind}",
        "num_classes": classes,
        "frozen_norms": not any(key.endswith("num_batches_tracked") for key in state),  # only live norms count
    }
    detector = architecture.build(description)
    fit(detector, state, set(), f"{file} does not fit {kind}", "is --detector its kind?")
    coco = _coco_classes(kind)
    return Ordinary(detector, coco if coco and len(coco) + 1 == classes else None, str(file))


def _downloaded(name: str) -> Ordinary:
    _check_name(name)
    weights = get_model_weights(name)["DEFAULT"]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        detector = get_model(name, weights=weights, progress=False)
    except Exception as error:  # network errors are many: URLError, timeouts, wrong hash, a truncated file
        raise WeightsError(
            f"cannot get torchvision's {weights} of {name} ({first_line(error)}); put the file at {cached}"
        ) from error
    return Ordinary(detector, _coco_classes(name), name)


def _coco_classes(name: str) -> tuple[str, ...] | None:
    """The classes of torchvision's weights of a detector, by label from 1 on, with gaps named `NO_CLASS`."""
    words: Any = get_model_weights(name)["DEFAULT"].meta["categories"]
    return tuple(words[1:]) if words[0] == BACKGROUND else None


def _check_name(name: str) -> None:
    if name not in names():
        raise ConfigError(
            f"{name!r} is no file, no bundle and none of torchvision's detectors that can be trained: "
            f"{', '.join(names())}{did_you_mean(name, names())}"
        )
