"""YOLO data sets: one text file per image, a line per object.

A line is `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...` (an outline), everything relative to the image's sides.
The labels of `.../images/x.jpg` are in `.../labels/x.txt`; a missing file means an image without objects.
"""

import math
from pathlib import Path
from typing import Any

import yaml

from slimdet.data.annotations import AnnotatedImage, AnnotatedSet, boxed, lines
from slimdet.errors import DataError
from slimdet.images.decoding import image_size
from slimdet.images.folders import SUFFIXES, images_in

VAL_NAMES = ("val", "valid", "validation")


def is_yolo(dataset: Path) -> bool:
    """Whether a folder (or YAML file) looks like a YOLO data set."""
    return _yaml_of(dataset) is not None or any(next(dataset.glob(place), None) for place in ("labels", "*/labels"))


def read_yolo(dataset: Path) -> AnnotatedSet:
    """Read a YOLO data set: the folder (or file) of a data.yaml, or `images/`, `labels/` and maybe `classes.txt`.

    Raises:
        DataError: a malformed file or line, named; an image that is listed and does not exist.
        ImageError: an image whose size cannot be read.
    """
    file = _yaml_of(dataset)
    if file is None:
        names, keypoints, splits = _plain_names(dataset), 0, _split_folders(dataset)
    else:
        names, keypoints, splits = _read_yaml(file)
    read = {name: [_read_image(path, names, keypoints) for path in paths] for name, paths in splits.items()}
    if names is None:
        used = {item["category_id"] for images in read.values() for image in images for item in image.objects}
        names = {number - 1: f"class_{number - 1}" for number in sorted(used)}
    return AnnotatedSet({index + 1: name for index, name in names.items()}, read)


def _yaml_of(dataset: Path) -> Path | None:
    if dataset.is_file():
        return dataset if dataset.suffix in (".yaml", ".yml") else None
    found = sorted(path for path in dataset.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))
    found.sort(key=lambda path: path.stem not in ("data", "dataset"))
    for path in found:
        content = _parse_yaml(path)
        if isinstance(content, dict) and "names" in content:
            return path
    return None


def _parse_yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{file}: cannot be read as YAML: {' '.join(str(error).split())}") from None


def _read_yaml(file: Path) -> tuple[dict[int, str], int, dict[str, list[Path]]]:
    """Class names by index, numbers of a keypoint tail, and the images of each split."""
    content = _parse_yaml(file)
    names = content["names"]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(k, int) and k >= 0 for k in names):
        raise DataError(f"{file}: names is {content['names']!r}; it needs a list of names, or 0: name, 1: name ...")
    if content.get("nc", len(names)) != len(names):
        raise DataError(f"{file}: nc is {content['nc']!r}, but there are {len(names)} names")
    root = file.parent / str(content.get("path") or ".")
    if not root.is_dir():  # a path of the machine that it was made on
        root = file.parent
    val = next((content[name] for name in VAL_NAMES if content.get(name)), None)
    given = {"train": content.get("train"), "val": val}
    splits = {name: _images(value, root, file, name) for name, value in given.items() if value}
    if not splits:
        raise DataError(f"{file}: has neither 'train:' nor 'val:'")
    shape = content.get("kpt_shape") or [0]
    return {index: str(name) for index, name in names.items()}, math.prod(shape), splits


def _images(value: Any, root: Path, file: Path, split: str) -> list[Path]:
    found: list[Path] = []
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, str):
            raise DataError(f"{file}: {split} is {value!r}; it needs a folder of images or a text file that lists them")
        # Some exports say ../train/images and mean train/images.
        place = next((p for p in (root / entry, root / entry.removeprefix("../")) if p.exists()), None)
        if place is None:
            raise DataError(f"{file}: {split}: no such folder or list of images: {root / entry}")
        found += images_in(place) if place.is_dir() else _listed(place, root)
    if not found:
        raise DataError(f"{file}: {split}: no images in {value}")
    return list(dict.fromkeys(found))


def _listed(file: Path, root: Path) -> list[Path]:
    found = []
    for number, line in lines(file):
        path = next((p for p in (file.parent / line, root / line) if p.is_file()), None)
        if path is None or path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{file}:{number}: no such image: {line}")
        found.append(path)
    return found


def _split_folders(dataset: Path) -> dict[str, list[Path]]:
    """Splits of a data set without YAML: images/train or train/images, train.txt, or all images as train."""
    splits: dict[str, list[Path]] = {}
    for split, names in (("train", ("train",)), ("val", VAL_NAMES)):
        for name in names:
            folders = (dataset / "images" / name, dataset / name / "images")
            folder = next((f for f in folders if f.is_dir()), None)
            listing = dataset / f"{name}.txt"
            if folder is not None or listing.is_file():
                splits[split] = images_in(folder) if folder else _listed(listing, dataset)
                break
    if not splits and (dataset / "images").is_dir() and (dataset / "labels").is_dir():
        splits["train"] = images_in(dataset / "images")
    splits = {name: paths for name, paths in splits.items() if paths}
    if not splits:
        raise DataError(f"{dataset}: has labels but no images in images/, images/train or train/images")
    return splits


def _plain_names(dataset: Path) -> dict[int, str] | None:
    for file in (dataset / "classes.txt", dataset / "labels" / "classes.txt", dataset / "obj.names"):
        if file.is_file():
            return {index: line for index, (_, line) in enumerate(lines(file))}
    return None


def _read_image(path: Path, names: dict[int, str] | None, keypoints: int) -> AnnotatedImage:
    width, height = image_size(path)
    image = AnnotatedImage(path, width, height)
    labels = _labels_of(path)
    for number, line in lines(labels) if labels.is_file() else ():
        try:
            image.objects.append(_object(line.split(), names, keypoints, width, height))
        except ValueError as error:
            raise DataError(f"{labels}:{number}: {error}: {line[:80]!r}") from None
    return image


def _labels_of(path: Path) -> Path:
    """The label file: the last folder named images becomes labels; without one, it lies beside the image."""
    parts = list(path.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _object(words: list[str], names: dict[int, str] | None, keypoints: int, width: int, height: int) -> dict[str, Any]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError("something that is not a number") from None
    if keypoints and len(numbers) == 5 + keypoints:
        numbers = numbers[:5]
    if len(numbers) != 5 and (len(numbers) < 7 or len(numbers) % 2 == 0):
        raise ValueError(f"{len(numbers)} numbers; a box has 5 (class cx cy w h), an outline 7, 9, 11 ...")
    if not numbers[0].is_integer() or (numbers[0] < 0 if names is None else numbers[0] not in names):
        raise ValueError(
            f"class {words[0]} is not one of 0..{max(names)}" if names else f"class {words[0]} is no index"
        )
    category, values = int(numbers[0]) + 1, numbers[1:]
    if not all(-0.01 <= value <= 1.01 for value in values):  # rounding is forgiven; NaN is not
        raise ValueError("coordinates that are not relative to the image, 0..1")
    if len(values) == 4:
        cx, cy, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        return boxed(category, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), width, height)
    xs = [min(max(x, 0.0), 1.0) * width for x in values[0::2]]
    ys = [min(max(y, 0.0), 1.0) * height for y in values[1::2]]
    annotation = boxed(category, (min(xs), min(ys), max(xs), max(ys)), width, height)
    annotation["segmentation"] = [[round(value, 3) for point in zip(xs, ys, strict=True) for value in point]]
    annotation["area"] = round(_area(xs, ys), 3)
    return annotation


def _area(xs: list[float], ys: list[float]) -> float:
    """Area of a polygon by the shoelace formula, in square pixels."""
    doubled = sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))
    return abs(doubled) / 2
