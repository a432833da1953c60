"""Describe a detector as data, and build it again from the description: no code is stored, none is executed.

A description is the name of a builder with its arguments, and `settings`: whatever plain value (threshold, image size,
number of proposals) differs from what that builder gives. Ready-made torchvision detectors are recognised by their
classes and by the names and shapes of their weights.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d

from slimdet.errors import BundleError
from slimdet.images.sides import MOST
from slimdet.models import builders

Description = dict[str, Any]

# What every module has, and what our builders add: not settings.
_NOT_SETTINGS = {*vars(nn.Module()), "architecture", "weights_loaded"}
_PLAIN = (bool, int, float, str, type(None))

# The least and most that a setting may be, by the end of its path: beyond, a detector takes hours or all memory, or
# divides by zero. What is not named may be any finite number.
_FINITE = (-(2.0**63), 2.0**63)
_POSITIVE = (1e-6, 2.0**63)
_COUNT, _SHARE, _SIDE, _CELLS = (1, 100_000), (0, 1), (1, MOST), (0, 64)
_BOUNDS: dict[str, tuple[float, float]] = {
    "sampling_ratio": (-1, 16),  # -1 and 0: as the box's size says
    "output_size": (1, 64),
    **dict.fromkeys(("_pre_nms_top_n", "_post_nms_top_n", "detections_per_img", "topk_candidates"), _COUNT),
    "batch_size_per_image": _COUNT,
    **dict.fromkeys(("score_thresh", "nms_thresh", "low_threshold", "high_threshold", "positive_fraction"), _SHARE),
    **dict.fromkeys(("transform.min_size", "transform.fixed_size"), _SIDE),
    "transform.max_size": (1, 2.0**63),  # some have no limit
    "size_divisible": (1, 1024),
    **dict.fromkeys(("image_std", "scales", "canonical_scale", "sizes", "aspect_ratios", "steps"), _POSITIVE),
    **dict.fromkeys(("kernel_size", "stride", "padding", "dilation", "output_padding", "up_scale"), _CELLS),
    "_reversed_padding_repeated_twice": _CELLS,
}
_MOST_LEAVES, _DEEPEST = 1000, 3  # values of one setting, and lists within lists


def describe(detector: nn.Module) -> Description:
    """Return the description of a detector made by `slimdet.models.builders` or by torchvision, settings included.

    Raises:
        BundleError: the detector is of neither kind, its parts were replaced by others, or a setting is one that
            `build` refuses.
    """
    made_by_us = getattr(detector, "architecture", None)
    description = dict(made_by_us) if isinstance(made_by_us, dict) else _recognise(detector)
    reference = _construct(description)
    difference = _shape_difference(detector, reference)
    if difference:
        raise BundleError(
            f"{type(detector).__name__} was changed after it was built ({difference}); build it with "
            "slimdet.models.builders or hand over an unchanged torchvision detector"
        )
    description["settings"] = _settings(detector, reference)
    return description


def build(description: Description) -> nn.Module:
    """Build the detector of a description, with random weights.

    Raises:
        BundleError: the description is malformed, names what does not exist or sets what no detector has.
    """
    if not isinstance(description, dict) or not isinstance(description.get("builder"), str):
        raise BundleError("the architecture is not a description with a 'builder'; the file is damaged or foreign")
    detector = _construct(description)
    _apply_settings(detector, description.get("settings") or {})
    return detector


def check_shapes(description: Description, stored: Mapping[str, tuple[int, ...]]) -> None:
    """Make sure that a detector has the tensors stored, by name and shape, before memory is taken for it.

    Raises:
        BundleError: it has not, or cannot be built at all.
    """
    with torch.device("meta"):
        detector = _construct(description)
    wanted = {key: tuple(value.shape) for key, value in detector.state_dict().items()}
    if difference := _difference(stored, wanted):
        raise BundleError(f"the weights are not those of the architecture: {difference}")


def _construct(description: Description) -> nn.Module:
    arguments = {key: value for key, value in description.items() if key != "settings"}
    builder = arguments["builder"]
    try:
        if builder == "original":
            from slimdet.original.detector import detector as original  # needed by its bundles alone

            return original.build(arguments)
        if not builder.startswith("torchvision."):
            return builders.build(arguments)
        name = builder.removeprefix("torchvision.")
        if name not in torchvision.models.list_models(module=detection):
            raise BundleError(f"torchvision has no detector {name!r}; install the release that made this bundle")
        made = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=int(arguments["num_classes"])
        )
        return _freeze_norms(made) if arguments.get("frozen_norms") else made
    except BundleError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise BundleError(f"the architecture {builder!r} cannot be built: {error}") from error


def _freeze_norms(module: nn.Module) -> nn.Module:
    """Replace batch norms by frozen ones, as torchvision does where it starts from pretrained weights."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
        else:
            _freeze_norms(child)
    return module


def _recognise(detector: nn.Module) -> Description:
    classes = _number_of_classes(detector)
    frozen = any(isinstance(module, FrozenBatchNorm2d) for module in detector.modules())
    for name in torchvision.models.list_models(module=detection) if classes else []:
        description = {"builder": f"torchvision.{name}", "num_classes": classes, "frozen_norms": frozen}
        with torch.device("meta"):
            candidate = _construct(description)
        if type(candidate) is type(detector) and not _shape_difference(detector, candidate):
            return description
    raise BundleError(
        f"{type(detector).__name__} is none of torchvision's ready-made detectors; build it with "
        "slimdet.models.builders, so that a bundle can say how to build it again"
    )


def _number_of_classes(detector: nn.Module) -> int | None:
    for path in ("roi_heads.box_predictor.cls_score", "head.classification_head"):
        try:
            part = detector.get_submodule(path)
        except AttributeError:
            continue
        for attribute in ("out_features", "num_classes", "num_columns"):
            if isinstance(value := getattr(part, attribute, None), int):
                return value
    return None


def _shape_difference(detector: nn.Module, reference: nn.Module) -> str:
    """One difference between the state dicts' names and shapes, or an empty string."""
    given, wanted = (
        {key: tuple(value.shape) for key, value in module.state_dict().items()} for module in (detector, reference)
    )
    return _difference(given, wanted)


def _difference(given: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> str:
    for key in sorted(given.keys() | wanted.keys()):
        if given.get(key) != wanted.get(key):
            return f"{key} is {given.get(key, 'absent')} and not {wanted.get(key, 'absent')}"
    return ""


# ------------------------------------------------------------------------------------------------- settings


def _objects(detector: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every module, and every plain helper object of torchvision's detection package that a module holds, by path."""
    for name, module in detector.named_modules():
        yield name, module
        for attribute, value in vars(module).items():
            if type(value).__module__.startswith("torchvision.models.detection") and not isinstance(value, nn.Module):
                yield f"{name}.{attribute}".lstrip("."), value


def _plain_values(thing: Any) -> dict[str, Any]:
    return {key: value for key, value in vars(thing).items() if key not in _NOT_SETTINGS and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return isinstance(value, _PLAIN)


def _settings(detector: nn.Module, reference: nn.Module) -> dict[str, dict[str, Any]]:
    usual = {path: _plain_values(thing) for path, thing in _objects(reference)}
    found: dict[str, dict[str, Any]] = {}
    for path, thing in _objects(detector):
        for key, value in _plain_values(thing).items():
            if key in usual.get(path, {}) and value != usual[path][key]:
                found.setdefault(path, {})[key] = _like(usual[path][key], value, f"{path}.{key}")
    return found


def _apply_settings(detector: nn.Module, settings: Any) -> None:
    things = dict(_objects(detector))
    if not isinstance(settings, dict):
        raise BundleError(f"the architecture's settings are {type(settings).__name__}, not a mapping")
    for path, values in settings.items():
        for key, value in values.items() if isinstance(values, dict) else [("", None)]:
            usual = _plain_values(things[path]) if path in things else {}
            if key not in usual:
                raise BundleError(f"the architecture sets {path}.{key}, which this detector does not have")
            setattr(things[path], key, _like(usual[key], value, f"{path}.{key}"))
        if isinstance(things[path], AnchorGenerator):  # its anchors were made from the sizes it was built with
            generator = things[path]
            try:
                generator.cell_anchors = [
                    generator.generate_anchors(sizes, ratios)
                    for sizes, ratios in zip(generator.sizes, generator.aspect_ratios, strict=True)
                ]
            except (TypeError, ValueError, RuntimeError) as error:
                raise BundleError(f"the architecture's settings of {path} make no anchors: {error}") from error


def _like(usual: Any, value: Any, where: str) -> Any:
    """The value in the usual one's kind, JSON knows no tuples, if it is one that a detector may have."""
    leaves = _leaves(value)
    kinds = {type(None), float} if usual is None else set(map(_kind, _leaves(usual)))
    same = _kind(usual) is _kind(value) and (not isinstance(usual, dict) or usual.keys() == value.keys())
    # One number will do for several (a convolution's padding), and none where there need be none (SSD's fixed_size).
    same |= usual is None or (isinstance(usual, tuple) and _kind(value) in kinds | {type(None)})
    if not (same and 0 < len(leaves) <= _MOST_LEAVES and (value is None or set(map(_kind, leaves)) <= kinds)):
        raise BundleError(f"the architecture sets {where} to {value!r:.80}, where {usual!r:.80} is usual")
    ends = ".".join(where.split(".")[-2:]), where.rpartition(".")[2]
    least, most = next((_BOUNDS[end] for end in ends if end in _BOUNDS), _FINITE)
    if not all(least <= leaf <= most for leaf in leaves if isinstance(leaf, int | float)):
        raise BundleError(f"the architecture sets {where} to {value!r:.80}, which is not in {least:g} to {most:g}")
    return _tuples(value) if isinstance(usual, tuple) else value


def _kind(value: Any) -> type:
    if isinstance(value, list | tuple):
        return list
    return float if isinstance(value, int | float) else type(value)


def _leaves(value: Any) -> list[Any]:
    """What lists, tuples and dicts hold, as deep as settings go."""
    leaves = [value]
    for _ in range(_DEEPEST):
        within = [list(leaf.values()) if isinstance(leaf, dict) else leaf for leaf in leaves]
        leaves = [one for leaf in within for one in (leaf if isinstance(leaf, list | tuple) else [leaf])]
    return leaves


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
