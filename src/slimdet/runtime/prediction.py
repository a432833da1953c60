"""Detect objects in images: drawn pictures, COCO JSON, one line per image. No torch, unless it is the engine."""

import glob
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimdet.errors import ConfigError, DataError, ImageError
from slimdet.files import atomic_write, new_run_dir
from slimdet.images.folders import UNREAD_HINT, images_in, unread_in
from slimdet.messages import printable
from slimdet.runtime.engine import CONF, EngineSettings
from slimdet.runtime.pipeline import in_order

if TYPE_CHECKING:
    from slimdet.runtime.detector import Runtime
    from slimdet.runtime.preprocessing import DecodedImage
    from slimdet.runtime.result import Result


logger = logging.getLogger("slimdet")


@dataclass(frozen=True)
class PredictSettings(EngineSettings):
    """How objects are looked for in images."""

    width: float = 1.0
    conf: float = CONF  # least score of a detection
    batch: int = 8  # images at a time; those that become one size run together


@dataclass
class Predictions:
    """What was found: a COCO document with `annotations` that have scores, and the files that could not be read."""

    run: Path
    coco: dict[str, Any]
    broken: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    """A result and what becomes of it: its number from 1, the image's file, where its picture goes."""

    number: int
    file: Path
    picture: Path
    result: "Result"

    def written(self) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
        """Write the picture; give COCO's image, its annotations without ids, and the line for people."""
        width, height = self.result.image_size
        self.result.save(self.picture)
        image = {"id": self.number, "file_name": str(self.file), "height": height, "width": width}
        elapsed = self.result.speed["inference_ms"]
        line = f"{printable(str(self.file))}: {width}x{height}, {_counted(self.result)}, {elapsed:.1f} ms"
        return image, self.result.to_coco(self.number), line


def find_images(sources: Sequence[str]) -> list[Path]:
    """Expand files, folders (searched through) and glob patterns to image files, each once, in order.

    Pictures in `runs/predict-N` are left out, unless that folder is named: they are what `predict` wrote.

    Raises:
        DataError: a source that is nothing of these, or that has no image in it.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            matches = images_in(path)
            if unread := unread_in(path):
                logger.warning("%s: %d photographs are not read; %s", unread[0], len(unread), UNREAD_HINT)
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(Path(match) for match in glob.glob(source, recursive=True) if Path(match).is_file())
        matches = [match for match in matches if not _is_own(match, path)]
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
        memory=settings.memory,
    ).prepare([settings.width])
    classes, ids = detector.classes, detector.category_ids
    folder = new_run_dir("predict", out)
    coco: dict[str, Any] = {
        "images": [],
        "categories": [{"id": id_, "name": name} for id_, name in zip(ids, classes, strict=True)],
        "annotations": [],
    }
    predictions = Predictions(folder, coco)
    # The file is there from the beginning, under another name: the folder is not empty, and nobody else's.
    with (
        atomic_write(folder / "detections.json") as temporary,
        closing(_found(detector, files, settings.batch, predictions)) as found,
        closing(in_order(_Found.written, found, settings.batch)) as written,
    ):
        if len(list(folder.iterdir())) > 1:
            raise ConfigError(f"--out {folder} is being written to by somebody else; choose another folder")
        for done in written:
            image, annotations, line = done.result()
            coco["images"].append(image)
            for annotation in annotations:
                coco["annotations"].append(annotation | {"id": len(coco["annotations"]) + 1})
            print(line, file=sys.stderr)
        temporary.write_text(json.dumps(coco, allow_nan=False) + "\n")
    return predictions


def _found(detector: "Runtime", files: Sequence[Path], batch: int, predictions: Predictions) -> Generator[_Found]:
    """What is found in every file that can be read; the others go into `broken`. The next batch is read meanwhile."""
    taken: set[str] = set()
    with closing(in_order(detector.read, files, batch)) as reading:
        for start in range(0, len(files), batch):
            images: dict[int, DecodedImage] = {}
            for number, read in enumerate(islice(reading, batch), start + 1):
                try:
                    images[number] = read.result()
                except ImageError as error:
                    predictions.broken[str(files[number - 1])] = str(error)
                    print(f"skipped {error}", file=sys.stderr)
            numbers, results = list(images), detector.detect(list(images.values()))[::-1]
            images.clear()  # none is held longer than until its picture is drawn
            for number in numbers:
                file = files[number - 1]
                yield _Found(number, file, predictions.run / _picture_name(file, taken), results.pop())


def _is_own(image: Path, source: Path) -> bool:
    """Whether an image lies in a folder `runs/predict-N` that the source, a path or pattern, does not name."""
    parts = image.absolute().parts
    runs = [part for above, part in pairwise(parts[:-1]) if above == "runs" and re.fullmatch(r"predict-\d+", part)]
    named = [part for part in source.absolute().parts if part.startswith("predict-")]
    return any(not any(fnmatch(run, name) for name in named) for run in runs)


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
