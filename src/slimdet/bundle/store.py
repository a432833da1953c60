"""The bundle: a slimmable detector as a folder.

`model.json` says what the model is (architecture, classes, widths, scope, what was measured, the weights' sha256);
`weights.safetensors` holds the state dict: the widest detector's ordinary keys, and what belongs to each other width
under `twins.0_25.` and so on. Nothing in a bundle executes when it is loaded.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_to_bytes

import slimdet
from slimdet.bundle import manifest
from slimdet.bundle.card import Card, digests
from slimdet.bundle.document import FORMAT, MODEL
from slimdet.bundle.manifest import WEIGHTS
from slimdet.core.scopes import SCOPES, Scope
from slimdet.core.slimmable import Slimmable, slim
from slimdet.errors import BundleError, SlimdetError
from slimdet.files import atomic_folder
from slimdet.messages import first_line
from slimdet.models import architecture


def save(model: Slimmable, path: str | Path, card: Card | None = None, half: bool = False) -> Path:
    """Write a model as a bundle and return its folder.

    A bundle that is there already is replaced, whole, once the new one is complete; its engine files, which are of its
    weights, go with it. Files that are not the bundle's own stay.

    Args:
        model: what `slim` or `load` returned.
        path: the folder.
        card: classes, settings of the training and numbers; of the bundle that a model was loaded from,
            `slimdet.bundle.card.read(path)`. Numbers that belong to other weights than those that are written are
            left out, and a warning names their widths.
        half: store in 16 bits; norms and biases stay in 32 where 16 would lose small or large values. Numbers of the
            weights before they were rounded are numbers of other weights.

    Raises:
        BundleError: the detector cannot be described, or `path` is a file or a folder that holds something else.
        WidthError: a width was added and has no statistics of its own yet.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and ((path / MODEL).exists() or not any(path.iterdir()))):
        raise BundleError(f"{path} exists and is not a bundle; choose another folder")
    for width in model.widths:
        model.check_statistics(width)
    description = architecture.describe(model.twin(1.0))
    content = _serialized(model, half)
    card = (card or Card()).true_of(digests(content, model.widths))
    if not card.classes:
        card = replace(card, classes=tuple(_numbers(description)))
    document = {
        "format": FORMAT,
        "slimdet": slimdet.__version__,
        "architecture": description,
        "classes": list(card.classes),
        "category_ids": list(card.category_ids),
        "widths": list(model.widths),
        "scope": model.scope.name if model.scope in SCOPES.values() else asdict(model.scope),
        "norms": model.norm_sharing,
        "plans": {str(width): plan for width, plan in model.plans.items()},
        "calibrations": dict(card.calibrations),
        "metrics": dict(card.metrics),
        "ladder": [rung.entry for rung in card.ladder],
        "latencies": {machine: one.entry for machine, one in card.latencies.items()},
        "training": dict(card.training),
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)},
    }
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    with atomic_folder(path, keep=_others(path)) as temporary:
        (temporary / WEIGHTS).write_bytes(content)
        (temporary / MODEL).write_text(text)
    return path


def load(path: str | Path, device: str | torch.device = "cpu") -> Slimmable:
    """Load a bundle's model; it comes in eval mode. What the bundle says of it is in `slimdet.bundle.card.read(path)`.

    Raises:
        BundleError: the folder is missing, truncated, altered or not a bundle.
    """
    described = manifest.read(path)
    try:
        tensors = load_tensors(described.weights())
        widest = {key: tuple(value.shape) for key, value in tensors.items() if not key.startswith("twins.")}
        architecture.check_shapes(described.architecture, widest)
        model = slim(
            architecture.build(described.architecture),
            described.widths,
            _scope(described.scope),
            norm_sharing=described.norm_sharing,
            plans=described.plans,
        )
    except BundleError:
        raise
    except (SafetensorError, SlimdetError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise BundleError(f"{path} is damaged: {first_line(error)}") from error
    wanted = model.state_dict()
    _check_fit(path, tensors, wanted)
    model.load_state_dict({key: value.to(wanted[key].dtype) for key, value in tensors.items()})
    return model.to(device).eval()


def weights_of(model: Slimmable) -> dict[str, str]:
    """The digest of each width, {"0.25": ...}: what numbers of this model are bound to, see `Card.record`."""
    return digests(_serialized(model), model.widths)


def _others(path: Path) -> list[str]:
    """What is in a bundle's folder and no part of the bundle."""
    try:
        own = manifest.read(path).files
    except BundleError:  # there is none, or one so damaged that it does not say
        own = {MODEL, WEIGHTS}
    return [entry.name for entry in path.iterdir() if entry.name not in own] if path.is_dir() else []


def _serialized(model: Slimmable, half: bool = False) -> bytes:
    return tensors_to_bytes({key: _stored(value, half) for key, value in model.state_dict().items()})


def _scope(stored: str | dict[str, Any]) -> str | Scope:
    """The scope as stored: the name of a known one, or the fields of one of the user's own."""
    if isinstance(stored, str):
        return stored
    return Scope(stored["name"], tuple(stored["narrow"]), tuple(stored["keep"]), bool(stored["own_bias"]))


def _check_fit(path: Any, given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    missing = sorted(wanted.keys() - given.keys())
    unexpected = sorted(given.keys() - wanted.keys())
    misfits = sorted(key for key in wanted.keys() & given.keys() if wanted[key].shape != given[key].shape)
    for what, keys in (("lacks", missing), ("has unexpected", unexpected), ("has misfitting", misfits)):
        if keys:
            raise BundleError(f"{path} does not fit its own architecture: it {what} {len(keys)} tensors, as {keys[0]}")


def _stored(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not half or not tensor.is_floating_point():
        return tensor
    # A tiny weight may vanish in a sum; a tiny variance is divided by.
    sizes = tensor.abs()
    limits = torch.finfo(torch.float16)
    fits = tensor.dim() > 1 or bool(((sizes == 0) | ((sizes >= limits.tiny) & (sizes <= limits.max))).all())
    return tensor.half() if fits else tensor


def _numbers(description: Mapping[str, Any]) -> list[str]:
    return [str(label) for label in range(1, int(description["num_classes"]))]
