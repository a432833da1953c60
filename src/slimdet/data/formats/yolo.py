"""YOLO data sets: one text file per image, a line per object (`slimdet.data.formats.yolo_labels`).

The labels of `.../images/x.jpg` are in `.../labels/x.txt`, or beside the image; a missing file means an image without
objects, which is counted and said.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from slimdet.data.formats.annotated import (
    AnnotatedImage,
    AnnotatedSet,
    Findings,
    child,
    from_windows,
    lines,
    without_prefix,
)
from slimdet.data.formats.yolo_labels import parse_object
from slimdet.errors import DataError, ImageError
from slimdet.images.decoding import image_size
from slimdet.images.folders import UNREAD, UNREAD_HINT, images_in, is_image_name, unread_in

VAL_NAMES = ("val", "valid", "validation")
_CLASS_FILES = ("obj.names", "classes.txt", "data.names")
_NO_LABELS = {"classes", "train", "val", "valid", "validation", "test", "default"}  # text files that are lists
NO_LABEL = "images have no label file and count as images without objects"
LEFT_OUT = "boxes or outlines without area inside their image are left out"


@dataclass
class _Layout:
    """What a data set says of itself: class names by number (None: none are told), numbers of keypoints, images."""

    why: str
    names: dict[int, str] | None
    keypoints: int = 0
    splits: dict[str, list[Path]] = field(default_factory=dict)


def is_yolo(dataset: Path) -> bool:
    """Whether a folder (or YAML file) looks like a YOLO data set."""
    if yaml_of(dataset) or _class_file(dataset) or child(dataset, "obj.data"):
        return True
    return any(child(place, "labels") for place in (dataset, *_folders(dataset)))


def yaml_of(dataset: Path) -> Path | None:
    """The data.yaml of a folder, or the file itself."""
    if dataset.is_file():
        return dataset if is_yolo_yaml(dataset) else None
    found = [path for path in dataset.iterdir() if path.suffix.lower() in (".yaml", ".yml")]
    found.sort(key=lambda path: (path.stem not in ("data", "dataset"), path.name))
    return next((path for path in found if is_yolo_yaml(path)), None)


def is_yolo_yaml(file: Path) -> bool:
    """Whether a YAML file describes a YOLO data set, and not slimdet's own train: and val:."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        return False
    content = _parse_yaml(file)
    return isinstance(content, dict) and ("names" in content or isinstance(content.get("train"), list))


def read_yolo(dataset: Path) -> AnnotatedSet:
    """Read a YOLO data set: a data.yaml (or its folder), CVAT's obj.names with train.txt, or images with labels.

    Raises:
        DataError: a file that says where things are is malformed, or there are no images.
    """
    _label_folders.cache_clear()
    _texts_in.cache_clear()
    findings = Findings()
    file = yaml_of(dataset)
    layout = _from_folder(dataset, findings) if file is None else _from_yaml(file, findings)
    for split, paths in layout.splits.items():
        if paths and not any(label_file(path) for path in paths):
            findings.fault("no labels", paths[0].parent, f"{split}: none of {len(paths)} images has a label file")
    read = {
        split: [image for path in paths if (image := _read_image(path, layout, findings))]
        for split, paths in layout.splits.items()
    }
    _note_spare_labels(layout, findings)
    names = layout.names
    if names is None:
        used = {item["category_id"] for images in read.values() for image in images for item in image.objects}
        names = {number - 1: f"class_{number - 1}" for number in sorted(used)}
    return AnnotatedSet({index + 1: name for index, name in names.items()}, read, layout.why, findings)


def _folders(dataset: Path) -> list[Path]:
    return sorted(entry for entry in dataset.iterdir() if entry.is_dir()) if dataset.is_dir() else []


# --- a data.yaml


def _parse_yaml(file: Path) -> Any:
    try:  # all as text: YAML makes other things of on, off, no, 007 and 1e3
        return yaml.load(file.read_text(encoding="utf-8-sig"), yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as YAML: {' '.join(str(error).split())}") from None


def _from_yaml(file: Path, findings: Findings) -> _Layout:
    content = _parse_yaml(file)
    names = _names(file, content)
    said = from_windows(str(content.get("path") or "."))
    root = file.parent / Path(said).expanduser()
    if not root.is_dir():  # a path of the machine that it was made on
        findings.note("path is not here, and all others start from the file's folder", f"{file}: {said}")
        root = file.parent
    val = next((content[name] for name in VAL_NAMES if content.get(name)), None)
    given = {"train": content.get("train"), "val": val}
    splits = {name: _images(value, root, file, name, findings) for name, value in given.items() if value}
    if not splits:
        raise DataError(f"{file}: has neither 'train:' nor 'val:'")
    if content.get("test"):
        findings.note("test split is not read", f"{file}: {content['test']}")
    shape = content.get("kpt_shape") or ["0"]
    return _Layout(f"YOLO, by {file}", names, math.prod(map(int, shape)), splits)


def _names(file: Path, content: dict[str, Any]) -> dict[int, str] | None:
    given, number = content.get("names"), content.get("nc")
    if given is None:
        return None
    names = dict(enumerate(given)) if isinstance(given, list) else given
    sound = isinstance(names, dict) and names and all(str(k).isdecimal() for k in names)
    if not sound or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{file}: names is {given!r:.200}; it needs a list of names, or 0: name, 1: name ...")
    if number is not None and number != str(len(names)):
        raise DataError(f"{file}: nc is {number}, but there are {len(names)} names")
    return {int(index): name for index, name in names.items()}


def _images(value: Any, root: Path, file: Path, split: str, findings: Findings) -> list[Path]:
    found: list[Path] = []
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, str):
            raise DataError(f"{file}: {split} is {value!r}; it needs a folder of images or a text file that lists them")
        place = _place(from_windows(entry), root, file, findings)
        if place is None:
            raise DataError(f"{file}: {split}: no such folder or list of images: {root / from_windows(entry)}")
        found += _in_folder(place, findings) if place.is_dir() else _listed(place, root, findings)
    if not found and not findings.faults:
        raise DataError(f"{file}: {split}: no images in {value}")
    return list(dict.fromkeys(found))


def _place(entry: str, root: Path, file: Path, findings: Findings) -> Path | None:
    """A folder or list; Roboflow's exports say ../train/images and mean train/images beside the file."""
    there = root / Path(entry).expanduser()
    here = root / entry.removeprefix("../")
    if here == there or not here.exists():
        return there if there.exists() else None
    if there.exists():
        findings.note(
            "paths lead to two folders; the one beside the file is taken, as Roboflow means it", f"{file}: {entry}"
        )
    return here


def _in_folder(folder: Path, findings: Findings) -> list[Path]:
    for path in unread_in(folder):
        findings.note(f"photographs are not read; {UNREAD_HINT}", path)
    return images_in(folder)


def _listed(file: Path, root: Path, findings: Findings) -> list[Path]:
    found = []
    starts = list(dict.fromkeys((file.parent, root)))
    for number, line in lines(file):
        path = next((path for path in without_prefix(line, starts) if path.is_file()), None)
        if path is not None and path.suffix.lower() in UNREAD:
            findings.note(f"photographs are not read; {UNREAD_HINT}", path)
        elif path is None or not is_image_name(path):
            findings.fault("missing image", f"{file}:{number}", f"no such image: {line}")
        else:
            found.append(path)
    return found


# --- without one


def _from_folder(dataset: Path, findings: Findings) -> _Layout:
    """Lists train.txt and val.txt; images/train or train/images; images/ beside labels/; or images beside labels."""
    file = _class_file(dataset)
    names = {index: line for index, (_, line) in enumerate(lines(file))} if file else None
    layout = _Layout(f"YOLO, by {file or 'its folder labels'}", names)
    for split, words in (("train", ("train",)), ("val", VAL_NAMES)):
        for word in words:
            listing = child(dataset, f"{word}.txt")
            folder = child(child(dataset, "images") or dataset, word)
            if listing is not None:
                layout.splits[split] = _listed(listing, dataset, findings)
            elif folder is not None and folder.is_dir():
                layout.splits[split] = _in_folder(child(folder, "images") or folder, findings)
            if layout.splits.get(split):
                break
    if not any(layout.splits.values()):
        layout.splits["train"] = _in_folder(child(dataset, "images") or dataset, findings)
    layout.splits = {name: paths for name, paths in layout.splits.items() if paths}
    if not layout.splits:
        raise DataError(f"{dataset}: has labels but no images in images/, images/train or train/images")
    return layout


def _class_file(dataset: Path) -> Path | None:
    places = [place for place in (dataset, child(dataset, "labels")) if place]
    return next((file for place in places if (file := child(place, *_CLASS_FILES))), None)


# --- labels


def _read_image(path: Path, layout: _Layout, findings: Findings) -> AnnotatedImage | None:
    try:
        width, height = image_size(path)
    except ImageError as error:
        findings.fault("unreadable image", path, str(error).removeprefix(f"{path}: "))
        return None
    image = AnnotatedImage(path, width, height)
    labels = label_file(path)
    if labels is None:
        findings.note(NO_LABEL, path)
        return image
    try:
        numbered = lines(labels)
    except DataError as error:
        findings.fault("unreadable labels", labels, str(error).removeprefix(f"{labels}: "))
        return image
    for number, line in numbered:
        try:
            annotation = parse_object(line.split(), layout.names, layout.keypoints, width, height)
        except ValueError as error:
            findings.fault("malformed line", f"{labels}:{number}", f"{error}: {line[:80]!r}")
            continue
        if annotation is None:
            findings.note(LEFT_OUT, f"{labels}:{number}")
        else:
            image.objects.append(annotation)
    return image


def label_file(path: Path) -> Path | None:
    """An image's label file: the last folder named images becomes labels; else it lies beside the image."""
    return next((labels for place in _label_folders(path.parent) if (labels := _texts_in(place).get(path.stem))), None)


@cache
def _label_folders(folder: Path) -> list[Path]:
    parts = folder.parts
    for place in range(len(parts) - 1, -1, -1):
        if parts[place].lower() == "images":
            above = Path(*parts[:place])
            labels = child(above, "labels")
            return [folder] if labels is None else [labels.joinpath(*parts[place + 1 :]), folder]
    return [folder]


@cache
def _texts_in(folder: Path) -> dict[str, Path]:
    """The text files of a folder by stem; looked up once, for there may be a hundred thousand."""
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".txt"}


def _note_spare_labels(layout: _Layout, findings: Findings) -> None:
    """Count the label files that belong to no image, of a set that was read whole and not by lists."""
    folders: dict[Path, set[str]] = {}
    for folder in {path.parent for paths in layout.splits.values() for path in paths}:
        stems = {path.stem for path in folder.iterdir() if is_image_name(path)}
        for place in _label_folders(folder):
            folders.setdefault(place, set()).update(stems)
    for place, stems in folders.items():
        for stem, labels in _texts_in(place).items():
            if stem not in stems and stem.lower() not in _NO_LABELS and not stem.lower().startswith("readme"):
                findings.note("label files have no image and are left out", labels)
