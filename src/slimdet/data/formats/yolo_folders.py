"""YOLO data sets without a data.yaml: Darknet's, CVAT's, labelImg's and others, told by their folders and lists."""

import os
from pathlib import Path

from slimdet.data.formats.annotated import Findings, child, lines, visible, without_prefix
from slimdet.data.formats.yolo_images import VAL_NAMES, Layout, in_folder, in_list
from slimdet.data.formats.yolo_labels import parse_object
from slimdet.errors import DataError
from slimdet.images.folders import images_in, is_image_name

_CLASS_FILES = ("obj.names", "classes.txt", "data.names", "_darknet.labels")
_SAMPLE = 20  # images whose labels are looked for, to find out what a folder is


def from_folder(dataset: Path, findings: Findings) -> Layout:
    """Lists train.txt and val.txt; images/train or train/images; images/ beside labels/; or images beside labels."""
    layout = _named(dataset, findings)
    said, listed = _said(dataset, findings), False
    for split, words in (("train", ("train",)), ("val", VAL_NAMES)):
        for word in words:
            listing = said.get(word) or child(dataset, f"{word}.txt")
            folder = child(child(dataset, "images") or dataset, word)
            if listing is not None:
                layout.splits[split], listed = in_list(listing, dataset, findings), True
            elif folder is not None and folder.is_dir():
                layout.splits[split] = in_folder(child(folder, "images") or folder, findings)
            if layout.splits.get(split):
                break
    if not any(layout.splits.values()):
        layout.splits["train"] = in_folder(child(dataset, "images") or dataset, findings)
    layout.splits = {name: paths for name, paths in layout.splits.items() if paths}
    if not layout.splits:
        raise DataError(f"{dataset}: has labels but no images in images/, images/train or train/images")
    _note_others(dataset, layout, listed, findings)
    return layout


def _said(dataset: Path, findings: Findings) -> dict[str, Path]:
    """The lists that Darknet's obj.data names, by split."""
    file = next((path for path in visible(dataset) if path.suffix.lower() == ".data" and path.is_file()), None)
    found: dict[str, Path] = {}
    for _, line in lines(file) if file else ():
        key, _, value = (part.strip() for part in line.partition("="))
        if key in ("train", "valid", "test") and value:
            path = next((path for path in without_prefix(value, [dataset]) if os.path.isfile(path)), None)
            if path is None:
                findings.fault("missing list", str(file), f"{key}: no such file: {value}")
            else:
                found[key] = path
    return found


def _note_others(dataset: Path, layout: Layout, listed: bool, findings: Findings) -> None:
    """Count the images of a folder that belong to no split."""
    given = {path for paths in layout.splits.values() for path in paths}
    others = [path for path in images_in(dataset) if path not in given]
    real = {os.path.realpath(path) for path in given} if others else set()
    for path in others:
        if os.path.realpath(path) not in real:
            of_test = "test" in (part.lower() for part in path.relative_to(dataset).parts[:-1])
            split = "no list" if listed else "no split"
            findings.note("images of a test split are not read" if of_test else f"images are in {split}", path)


def _named(dataset: Path, findings: Findings) -> Layout:
    """What the file of class names says, wherever labelling tools put it."""
    files = class_files(dataset)
    if not files:
        return Layout("YOLO, by its labels", None)
    told = [lines(file) for file in files]
    for file, found in zip(files[1:], told[1:], strict=True):
        if [line for _, line in found] != [line for _, line in told[0]]:
            findings.fault("class names differ", file, f"from those in {files[0]}")
    numbers = [number for number, _ in told[0]]
    if numbers != list(range(1, len(numbers) + 1)):
        empty = next(place for place, number in enumerate(numbers, 1) if number != place)
        findings.fault("empty line", f"{files[0]}:{empty}", "tools do not agree which number the next class has")
    return Layout(f"YOLO, by {files[0]}", {index: line for index, (_, line) in enumerate(told[0])})


def class_files(dataset: Path) -> list[Path]:
    """The files of class names: in the folder, in that of the labels, or in those of the splits."""
    places = [dataset, *(place for place in [child(dataset, "labels")] if place)]
    places += [inner for place in list(places) for inner in folders(place) if inner.name.lower() != "images"]
    found = [file for place in places if (file := child(place, *_CLASS_FILES)) and file.is_file()]
    return list(dict.fromkeys(found))


def folders(dataset: Path) -> list[Path]:
    return [entry for entry in visible(dataset) if entry.is_dir()] if dataset.is_dir() else []


def labels_beside_images(folder: Path) -> bool:
    """Whether the first images of a folder that have a text file beside them have labels there."""
    entries = visible(folder) if folder.is_dir() else []
    stems = {path.stem for path in entries if is_image_name(path)}
    texts = [path for path in entries if path.suffix.lower() == ".txt" and path.stem in stems]
    return any(map(_holds_labels, texts[:_SAMPLE]))


def _holds_labels(file: Path) -> bool:
    try:
        found = lines(file)
        return bool(found) and parse_object(found[0][1].split(), None, 0, 100, 100) is not None
    except (DataError, ValueError):
        return False
