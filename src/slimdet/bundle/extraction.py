"""Write one width as a plain torchvision detector, for a process that has no slimdet."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from slimdet import __version__
from slimdet.bundle import manifest, store
from slimdet.errors import ConfigError
from slimdet.files import atomic_folder, new_run_dir


def extract(model: str, width: float, out: Path | None) -> dict[str, Any]:
    """Extract `width` of a bundle into the folder `out`, or `runs/extract-N`.

    Three files: `detector.pt`, the whole torch module (torchvision classes only); `weights.safetensors`, its ordinary
    state dict; `detector.json`: classes, width, where it came from.

    Returns:
        {"out", "width", "classes", "parameters", "files"}.

    Raises:
        BundleError, WidthError: what was given cannot be used.
        ConfigError: `out` exists and is not empty.
    """
    described = manifest.read(model)
    plain: Any = store.load(model).extract(width)
    ours = {type(module).__name__ for module in plain.modules() if type(module).__module__.startswith("slimdet")}
    if ours:
        raise ConfigError(
            f"{model} has layers of the original system ({min(ours)}) that need slimdet: run it with predict"
        )
    folder = new_run_dir("extract", out)
    parameters = sum(parameter.numel() for parameter in plain.parameters())
    document = {
        "width": width,
        "classes": list(described.classes),
        "category_ids": list(described.category_ids),
        "parameters": parameters,
        "slimdet": __version__,
    }
    with atomic_folder(folder) as temporary:
        torch.save(plain, temporary / "detector.pt")
        state = {key: value.contiguous() for key, value in plain.state_dict().items()}
        save_file(state, temporary / "weights.safetensors")
        (temporary / "detector.json").write_text(json.dumps(document, indent=2) + "\n")
    files = ["detector.pt", "weights.safetensors", "detector.json"]
    return {"out": str(folder), **document, "files": files}


def usage(written: dict[str, Any]) -> str:
    """How to run what was extracted, with torch and torchvision alone."""
    file = str(Path(written["out"]) / "detector.pt")
    return (
        f"width {written['width']}, {written['parameters'] / 1e6:.2f} M parameters, in {written['out']}; to run it:\n\n"
        "  import torch, torchvision\n"
        f"  detector = torch.load({file!r}, weights_only=False).eval()\n"
        "  found = detector([image])[0]  # image: float tensor [3, H, W] in 0..1"
    )
