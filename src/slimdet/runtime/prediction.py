"""Detect objects in images: drawn pictures, COCO JSON, one line per image. No torch, unless it is the engine."""

import glob
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimdet.errors import DataError, ImageError
from slimdet.files import atomic_write, new_run_dir
from slimdet.images.folders import images_in
from slimdet.runtime.engine import CONF, EngineSettings

if TYPE_CHECKING:
    from slimdet.runtime.detector import Runtime
    from slimdet.runtime.preprocessing import DecodedImage
    from slimdet.runtime.result import Result


@dataclass(frozen=True)
class PredictSettings(EngineSettings):
    """How objects are looked for in images."""

    width: float = 1.0
    conf: float = CONF  # least score of a detection
    batch: int = 8  # images that are read at a time; those of one size run together


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
            matches = images_in(path)
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(Path(match) for match in glob.glob(source, recursive=True) if Path(match).is_file())
        if not matches:
            what = "no image in this folder" if path.is_dir() else "no such file, folder or pattern"
            raise DataError(f"{source}: {what}")
        found |= dict.fromkeys(matches)
    return list(found)


def predict(
    sources: Sequence[str], model: str | Path, settings: PredictSettings | None = None, out: str | Path | None = None
) -> Predictions:
    """Detect objects in every image and write drawn pictures and `detections.json` to `out` or `runs/predict-N`.

    Broken files are named, counted and skipped.

    Args:
        sources: files, folders and glob patterns.
        model: a bundle's folder, or "bundled".
        settings: how; the default is `PredictSettings()`.
        out: a folder, new or empty.

    Raises:
        BundleError, ConfigError, WidthError, DataError: what was given cannot be used.
    """
    from slimdet.runtime.detector import Runtime  # heavy: `slimdet --help` reads the settings alone

    settings = settings or PredictSettings()
    files = find_images(sources)
    detector = Runtime(
        model,
        settings.width,
        settings.engine,
        settings.conf,
        device=settings.device,
        threads=settings.threads,
        imgsz=settings.imgsz,
        proposals=settings.proposals,
        precision=settings.precision,
    ).prepare([settings.width])
    classes, ids = detector.classes, detector.category_ids
    folder = new_run_dir("predict", out)
    coco: dict[str, Any] = {
        "images": [],
        "categories": [{"id": id_, "name": name} for id_, name in zip(ids, classes, strict=True)],
        "annotations": [],
    }
    predictions = Predictions(folder, coco)
    taken: set[str] = set()
    for number, file, result in _results(detector, files, settings.batch, predictions.broken):
        width_px, height = result.image_size
        coco["images"].append({"id": number, "file_name": str(file), "height": height, "width": width_px})
        for found in result.to_coco(number):
            coco["annotations"].append(found | {"id": len(coco["annotations"]) + 1})
        result.save(folder / _picture_name(file, taken))
        elapsed = result.speed["inference_ms"]
        print(f"{file}: {width_px}x{height}, {_counted(result)}, {elapsed:.1f} ms", file=sys.stderr)
    with atomic_write(folder / "detections.json") as temporary:
        temporary.write_text(json.dumps(coco, allow_nan=False) + "\n")
    return predictions


def _results(
    detector: "Runtime", files: Sequence[Path], batch: int, broken: dict[str, str]
) -> Iterator[tuple[int, Path, "Result"]]:
    """(number from 1, file, result) of every file that can be read; the others go into `broken`."""
    for start in range(0, len(files), batch):
        pictures: dict[int, DecodedImage] = {}
        for number, file in enumerate(files[start : start + batch], start + 1):
            try:
                pictures[number] = detector.read(file)
            except ImageError as error:
                broken[str(file)] = str(error)
                print(f"skipped {error}", file=sys.stderr)
        for number, result in zip(pictures, detector.detect(list(pictures.values())), strict=True):
            yield number, files[number - 1], result


def _picture_name(file: Path, taken: set[str]) -> str:
    """A free file name for a drawn picture: photographs of one name in two folders get two."""
    name, number = file.stem, 1
    while name.lower() in taken:  # some file systems tell no case
        number += 1
        name = f"{file.stem}-{number}"
    taken.add(name.lower())
    return f"{name}.jpg"


def _counted(result: "Result") -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(result.names).items()) or "nothing found"
