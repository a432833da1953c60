"""The original's checkpoints: read safely, map by name, complain about every entry that does not fit.

A checkpoint names width k's norms `backbone.bn1.bn.{k}.weight`; a `Slimmable` keeps those of the widest under
`backbone.body.bn1.weight` and the others under `twins.0_25.backbone.body.bn1.weight`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimdet.core.slimmable import Slimmable
from slimdet.errors import WeightsError
from slimdet.files import atomic_write
from slimdet.models.weights import read_checkpoint
from slimdet.widths import width_key

State = dict[str, Tensor]
Warn = Callable[[str], None]

# Names of the parts, without norms: ours (torchvision's) to the checkpoint's. First match counts.
_NAMES = (
    (r"backbone\.body\.(.*)", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.0\.(.*)", r"neck.lateral_convs.\1.conv.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.0\.(.*)", r"neck.fpn_convs.\1.conv.\2"),
    (r"rpn\.head\.conv\.0\.0\.(.*)", r"rpn_head.rpn_conv.\1"),
    (r"rpn\.head\.cls_logits\.(.*)", r"rpn_head.rpn_cls.\1"),
    (r"rpn\.head\.bbox_pred\.(.*)", r"rpn_head.rpn_reg.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(.*)", r"bbox_head.fc_cls.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.*)", r"bbox_head.fc_reg.\1"),
    (r"roi_heads\.box_head\.fc(\d+)\.(.*)", r"bbox_head.shared_fcs.\1.\2"),
    (r"roi_heads\.mask_head\.(\d+)\.0\.(.*)", r"mask_head.convs.\1.conv.\2"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(.*)", r"mask_head.upsample.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.*)", r"mask_head.conv_logits.\1"),
)
_COUNTER = "num_batches_tracked"


def names(model: Slimmable) -> dict[str, str]:
    """The checkpoint's name of every entry of a model's state dict, in the checkpoint's order: {theirs: ours}."""
    widest, norms = model.twin(1.0), {}
    for name, module in widest.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name.startswith("backbone.body."):
            norms[name] = module
    order: dict[str, str] = {}
    for ours in widest.state_dict():
        owner, _, field = ours.rpartition(".")
        if owner not in norms:
            order[_renamed(ours)] = ours
        elif field == "weight":  # the first field of a norm: all widths' norms stand here, the narrowest first
            for index, width in enumerate(model.widths):
                prefix = "" if width == 1.0 else f"twins.{width_key(width)}."
                for key in norms[owner].state_dict():
                    order[f"{_renamed(owner + '.')}bn.{index}.{key}"] = f"{prefix}{owner}.{key}"
    # The original registered its last layers before the shared ones.
    return dict(sorted(order.items(), key=lambda item: _part(item[0])))


def _part(name: str) -> int:
    parts = ("bbox_head.fc_", "bbox_head.shared_fcs", "mask_head")
    return next((rank for rank, part in enumerate(parts, 1) if name.startswith(part)), 0)


def _renamed(ours: str) -> str:
    for pattern, theirs in _NAMES:
        found = re.fullmatch(pattern, ours)
        if found:
            if "shared_fcs" in theirs:
                return f"bbox_head.shared_fcs.{int(found[1]) - 6}.{found[2]}"
            return found.expand(theirs)
    raise AssertionError(f"no name for {ours}")


# ------------------------------------------------------------------------------------------------- reading


def read(path: str | Path) -> dict[str, Any]:
    """Open a checkpoint without executing anything in it: {"state_dict": {name: tensor}, "meta": ..., ...}.

    Raises:
        WeightsError: as `slimdet.models.weights.read_checkpoint`.
    """
    state, rest = read_checkpoint(path)
    return {**rest, "state_dict": state}


# ------------------------------------------------------------------------------------------------- fitting


def load(
    model: Slimmable, path: str | Path, lenient: bool = False, warn: Warn = print, advice: str = ""
) -> dict[str, Any]:
    """Put a detection checkpoint's weights into a model, by name; return the checkpoint's other entries ("meta").

    Args:
        model: built from the checkpoint's config and slimmed with scope "backbone".
        lenient: load what fits and warn of the rest, instead of refusing.
        advice: what to do about entries that do not fit; it ends the error.

    Raises:
        WeightsError: as `read`, or entries are missing, unexpected or of another shape: all are listed.
    """
    content = read(path)
    given, wanted = content.pop("state_dict"), names(model)
    state = model.state_dict()
    shapes = {name: tuple(state[ours].shape) for name, ours in wanted.items()}
    problems = differences(given, shapes)
    if problems:
        if not lenient:
            raise WeightsError(f"{path} does not fit the config: {problems}{advice}")
        warn(f"warning: {path}: {problems}; the rest is loaded")
    for name, ours in wanted.items():
        if name in given and tuple(given[name].shape) == shapes[name]:
            state[ours] = given[name].to(state[ours].dtype)
    model.load_state_dict(state)
    return content


def differences(given: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What is missing, unexpected and misfitting, every entry by name; empty where all fits.

    A norm's counter of batches may be missing: files from before torch 0.4.1 have none, and nothing reads it.
    """
    missing = [name for name in shapes if name not in given and not name.endswith(_COUNTER)]
    unexpected = [name for name in given if name not in shapes]
    misfitting = [
        f"{name} {list(given[name].shape)} for {list(shape)}"
        for name, shape in shapes.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "misfitting": misfitting}
    return "; ".join(f"{len(entries)} {kind}: {', '.join(entries)}" for kind, entries in found.items() if entries)


def load_classifier(model: Slimmable, path: str | Path) -> None:
    """Put the backbone of an S-ResNet classification checkpoint into a model, entry by entry in order.

    The files share their order, not their names. Counters of batches are left out on both sides, and the classifier at
    the end is dropped; every entry must then agree in shape and in kind (weight, bias, running_mean, running_var).

    Raises:
        WeightsError: as `read`, or the file is not that backbone; the first entries that differ are named.
    """
    given = [(key, value) for key, value in read(path)["state_dict"].items() if not key.endswith(_COUNTER)]
    given = [(key, value) for key, value in given if not key.startswith("classifier.")]
    wanted = [(theirs, ours) for theirs, ours in names(model).items() if theirs.startswith("backbone.")]
    wanted = [(theirs, ours) for theirs, ours in wanted if not theirs.endswith(_COUNTER)]
    if len(given) != len(wanted):
        raise WeightsError(f"{path} has {len(given)} backbone entries, the model's backbone {len(wanted)}")
    state, wrong = model.state_dict(), []
    for (key, value), (theirs, ours) in zip(given, wanted, strict=True):
        same_kind = key.rpartition(".")[2] == theirs.rpartition(".")[2]
        if not same_kind or value.shape != state[ours].shape:
            wrong.append(f"{key} {list(value.shape)} for {theirs} {list(state[ours].shape)}")
        else:
            state[ours] = value.to(state[ours].dtype)
    if wrong:
        raise WeightsError(f"{path}: {len(wanted)} entries expected in order, {len(wrong)} differ: {', '.join(wrong)}")
    model.load_state_dict(state)


# ------------------------------------------------------------------------------------------------- writing


def state_of(model: Slimmable) -> State:
    """A model's weights as a checkpoint has them: its names, its order."""
    state = model.state_dict()
    return {theirs: state[ours].detach().cpu() for theirs, ours in names(model).items()}


def write(path: str | Path, model: Slimmable, meta: Mapping[str, Any], **more: Any) -> None:
    """Write a checkpoint as the original did: meta, state_dict, and what else is given (optimizer)."""
    with atomic_write(path) as temporary:
        torch.save({"meta": dict(meta), "state_dict": state_of(model), **more}, temporary)
