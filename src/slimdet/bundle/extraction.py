"""Write one width as a plain torchvision detector, for a process that has no slimdet."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from slimdet import __version__
from slimdet.bundle import manifest, store
from slimdet.errors import ConfigError
from slimdet.files import atomic_folder, new_run_dir
from slimdet.models.suppression import set_suppression

DESCRIPTION, STATE = "detector.json", "weights.safetensors"


@dataclass(frozen=True)
class Extraction:
    """What was written: the folder, the width, its number of parameters, classes [K] and their ids, files by name.

    `nms` is "all" where the bundle suppresses across classes, which torchvision's detectors do not: it is left to do.
    `architecture` builds the detector again, as a bundle holds it; None of a narrower width, which no builder makes.
    """

    out: Path
    width: float
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    parameters: int
    slimdet: str
    nms: str
    architecture: dict[str, Any] | None
    files: tuple[str, ...] = ("detector.pt", STATE, DESCRIPTION)


def extract(model: str | Path, width: float, out: str | Path | None = None) -> Extraction:
    """Extract `width` of a bundle into the folder `out`, or `runs/extract-N`.

    Three files: `detector.pt`, the whole torch module (torchvision classes only); `weights.safetensors`, its ordinary
    state dict; `detector.json`: classes, width, where it came from, and of width 1.0 the architecture.

    Raises:
        BundleError, WidthError: what was given cannot be used.
        ConfigError: `out` exists and is not empty.
    """
    described = manifest.read(model)
    plain: Any = store.load(model).extract(width)
    nms = described.architecture.get("nms", "class")
    if nms == "all":
        set_suppression(plain, "class")
    ours = {type(module).__name__ for module in plain.modules() if type(module).__module__.startswith("slimdet")}
    if ours:
        raise ConfigError(
            f"{model} has layers of the original system ({min(ours)}) that need slimdet: run it with predict"
        )
    folder = new_run_dir("extract", out)
    parameters = sum(parameter.numel() for parameter in plain.parameters())
    whole = described.architecture if width == 1.0 else None
    written = Extraction(folder, width, described.classes, described.category_ids, parameters, __version__, nms, whole)
    document = {name: value for name, value in asdict(written).items() if name not in ("out", "files")}
    with atomic_folder(folder) as temporary:
        torch.save(plain, temporary / "detector.pt")
        state = {key: value.contiguous() for key, value in plain.state_dict().items()}
        save_file(state, temporary / STATE)
        (temporary / DESCRIPTION).write_text(json.dumps(document, indent=2) + "\n")
    return written
