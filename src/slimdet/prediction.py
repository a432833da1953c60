"""Detect objects in images: drawn pictures, COCO JSON, one line per image."""

import glob
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from slimdet import bundle
from slimdet.data.annotated import images_in
from slimdet.detections import to_coco
from slimdet.devices import choose_device
from slimdet.drawing import draw
from slimdet.errors import DataError, ImageError
from slimdet.files import atomic_write, new_run_dir
from slimdet.image_size import set_image_size
from slimdet.images import read_image
from slimdet.slimmable import Slimmable


@dataclass
class Predictions:
    """What was found: a COCO document with `annotations` that have scores, and the files that could not be read."""

    run: Path
    coco: dict[str, Any]
    broken: dict[str, str] = field(default_factory=dict)


def find_images(sources: Sequence[str]) -> list[Path]:
    """Expand files, folders (searched through) and glob patterns to image files, each once, in order.

    Raises:
        DataError: a source that is nothing of these, or that has no image in it.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = [file for file in images_in(path) if file.is_file()]
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(Path(match) for match in glob.glob(source, recursive=True) if Path(match).is_file())
        if not matches:
            what = "no image in this folder" if path.is_dir() else "no such file, folder or pattern"
            raise DataError(f"{source}: {what}")
        found |= dict.fromkeys(matches)
    return list(found)


def detect_image(model: Slimmable, pixels: Any, width: float, conf: float, device: torch.device) -> dict[str, Tensor]:
    """Detect objects in one RGB array [H, W, 3]; detections under `conf` are left out."""
    image = torch.from_numpy(pixels).to(device).permute(2, 0, 1).float().div(255)  # [3, H, W]
    with torch.no_grad():
        result = model([image], width=width)[0]
    kept = result["scores"] >= conf
    return {name: value[kept].cpu() for name, value in result.items()}


def drawn(pixels: Any, result: dict[str, Tensor], classes: tuple[str, ...]) -> Image.Image:
    """The image with its boxes, names, scores and masks."""
    names = [classes[label - 1] for label in result["labels"].tolist()]
    masks = result["masks"].numpy() if "masks" in result else None
    return draw(pixels, result["boxes"].numpy(), names, result["scores"].tolist(), masks, classes)


def predict(
    sources: Sequence[str],
    model: str,
    width: float = 1.0,
    conf: float = 0.25,
    imgsz: int | None = None,
    device: str = "auto",
    out: Path | None = None,
) -> Predictions:
    """Detect objects in every image and write drawn pictures and `detections.json` to `out` or `runs/predict-N`.

    Broken files are named, counted and skipped.

    Raises:
        BundleError, WidthError, DataError: what was given cannot be used.
    """
    files = find_images(sources)
    slimmable = bundle.load(model)
    detector = slimmable.twin(width)
    if imgsz is not None:
        set_image_size(slimmable, imgsz)
    _keep_down_to(conf, detector)
    place = choose_device(device)
    slimmable.to(place)
    classes, ids = slimmable.classes, slimmable.category_ids
    folder = new_run_dir("predict", out)
    coco: dict[str, Any] = {
        "images": [],
        "categories": [{"id": id_, "name": name} for id_, name in zip(ids, classes, strict=True)],
        "annotations": [],
    }
    predictions = Predictions(folder, coco)
    taken: set[str] = set()
    for number, file in enumerate(files, 1):
        try:
            pixels = read_image(file)
            _check_shape(file, pixels, detector)
        except ImageError as error:
            predictions.broken[str(file)] = str(error)
            print(f"skipped {error}", file=sys.stderr)
            continue
        started = time.perf_counter()
        result = detect_image(slimmable, pixels, width, conf, place)
        elapsed = 1000 * (time.perf_counter() - started)
        height, width_px = pixels.shape[:2]
        coco["images"].append({"id": number, "file_name": str(file), "height": height, "width": width_px})
        for found in to_coco(result, number, ids):
            coco["annotations"].append(found | {"id": len(coco["annotations"]) + 1})
        with atomic_write(folder / _picture_name(file, taken)) as temporary:
            drawn(pixels, result, classes).save(temporary, quality=92)
        print(f"{file}: {width_px}x{height}, {_counted(result, classes)}, {elapsed:.1f} ms", file=sys.stderr)
    with atomic_write(folder / "detections.json") as temporary:
        temporary.write_text(json.dumps(coco, allow_nan=False) + "\n")
    return predictions


def _keep_down_to(conf: float, detector: Any) -> None:
    """Let through all scores from `conf` up; torchvision's detectors drop those up to 0.05 by themselves."""
    for part in (detector, getattr(detector, "roi_heads", None)):
        if part is not None and hasattr(part, "score_thresh"):
            part.score_thresh = min(part.score_thresh, conf - 1e-6)  # it keeps what is above, not what is at it


def _check_shape(file: Path, pixels: Any, detector: Any) -> None:
    height, width = pixels.shape[:2]
    limit = getattr(getattr(detector, "transform", None), "max_size", None)
    if limit and min(height, width) * limit <= max(height, width):
        raise ImageError(f"{file}: {width}x{height} pixels: nothing is left of it once the longer side has {limit}")


def _picture_name(file: Path, taken: set[str]) -> str:
    """A free file name for a drawn picture: photographs of one name in two folders get two."""
    name, number = file.stem, 1
    while name.lower() in taken:  # some file systems tell no case
        number += 1
        name = f"{file.stem}-{number}"
    taken.add(name.lower())
    return f"{name}.jpg"


def _counted(result: dict[str, Tensor], classes: Sequence[str]) -> str:
    counts = Counter(classes[label - 1] for label in result["labels"].tolist())
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing found"
