"""Detect objects in images: drawn pictures, COCO JSON, one line per image. No torch, unless it is the engine."""

import glob
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimdet.bundle.ladder import Point
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
class DetectSettings(EngineSettings):
    """What a detector is opened with, whatever its images come from."""

    width: float = 1.0
    conf: float = CONF  # least score of a detection


@dataclass(frozen=True)
class PredictSettings(DetectSettings):
    """How objects are looked for in images."""

    batch: int = 8  # images at a time; those that become one size run together

    @property
    def point(self) -> Point:
        """What they say of the operating point."""
        return Point(self.width, self.imgsz, self.proposals, self.precision)


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
    settings = settings or PredictSettings()
    files = find_images(sources)
    detector = opened(model, settings)
    point = detector.complete(settings.point)
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
        closing(batches(detector, files, settings.batch, lambda: point)) as found,
        closing(_named(found, files, predictions)) as named,
        closing(in_order(_Found.written, named, settings.batch)) as written,
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


def opened(model: str | Path, settings: DetectSettings, budget_ms: float | None = None) -> "Runtime":
    """The detector that settings ask for, with a budget for its calls where one is given.

    Raises:
        BundleError, ConfigError, WidthError: what was given cannot be used.
    """
    from slimdet.runtime.detector import Runtime  # heavy: `slimdet --help` reads the settings alone

    return Runtime(
        model,
        settings.width,
        settings.engine,
        settings.conf,
        budget_ms,
        device=settings.device,
        threads=settings.threads,
        imgsz=settings.imgsz,
        proposals=settings.proposals,
        precision=settings.precision,
        memory=settings.memory,
    )


def batches(
    detector: "Runtime", files: Sequence[Path], batch: int, choose: Callable[[], Point]
) -> Generator[list["Result | ImageError"]]:
    """What is found in every file, or why it cannot be read, in order and batch by batch; the next is read meanwhile.

    Args:
        detector: what runs.
        files: of images.
        batch: images at a time.
        choose: asked before each batch for the point that it runs at.
    """

    from slimdet.runtime import preprocessing

    def read(file: Path) -> "DecodedImage | ImageError":
        try:
            return preprocessing.read(file, detector.sides(point))
        except ImageError as error:
            return error

    with closing(in_order(read, files, batch)) as reading:
        for _ in range(0, len(files), batch):
            point = choose()
            found: list[Any] = [one.result() for one in islice(reading, batch)]
            good = [place for place, image in enumerate(found) if not isinstance(image, ImageError)]
            for place, result in zip(good, detector.detect([found[place] for place in good], point=point), strict=True):
                found[place] = result
            yield found
            del found  # what was handed out is not held here while the next are read


def _named(
    coming: Iterable[list["Result | ImageError"]], files: Sequence[Path], predictions: Predictions
) -> Generator[_Found]:
    """Every result with its number, file and picture; what could not be read goes into `broken`."""
    number, taken = 0, set[str]()
    for found in coming:
        found.reverse()
        while found:
            one, file = found.pop(), files[number]
            number += 1
            if isinstance(one, ImageError):
                predictions.broken[str(file)] = str(one)
                print(f"skipped {printable(str(one))}", file=sys.stderr)
            else:
                yield _Found(number, file, predictions.run / _picture_name(file, taken), one)
            del one  # none is held longer than until its picture is drawn


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
