"""YOLO data sets: one text file per image, a line per object (`slimdet.data.formats.yolo_labels`).

The labels of `.../images/x.jpg` are in `.../labels/x.txt`, or beside the image; a missing file means an image without
objects, which is counted and said.
"""

from functools import cache
from pathlib import Path

from slimdet.data.formats.annotated import CUT, LEFT_OUT, AnnotatedImage, AnnotatedSet, Findings, child, lines, visible
from slimdet.data.formats.yolo_folders import class_files, folders, from_folder, labels_beside_images
from slimdet.data.formats.yolo_images import Layout
from slimdet.data.formats.yolo_labels import parse_object, reaches_over
from slimdet.data.formats.yolo_yaml import from_yaml, yaml_of
from slimdet.errors import DataError, ImageError
from slimdet.images.decoding import image_size
from slimdet.images.folders import files_in, is_image_name

_NO_LABELS = {"classes", "train", "val", "valid", "validation", "test", "default"}  # text files that are lists
NO_LABEL = "images have no label file and count as images without objects"


def is_yolo(dataset: Path) -> bool:
    """Whether a folder (or YAML file) looks like a YOLO data set."""
    if yaml_of(dataset) or class_files(dataset) or child(dataset, "obj.data"):
        return True
    places = (dataset, *folders(dataset))
    return any(child(place, "labels") or labels_beside_images(place) for place in places)


def read_yolo(dataset: Path) -> AnnotatedSet:
    """Read a YOLO data set: a data.yaml (or its folder), CVAT's obj.names with train.txt, or images with labels.

    Raises:
        DataError: a file that says where things are is malformed, or there are no images.
    """
    _label_folders.cache_clear()
    _texts_in.cache_clear()
    findings = Findings()
    file = yaml_of(dataset)
    layout = from_folder(dataset, findings) if file is None else from_yaml(file, findings)
    for split, paths in layout.splits.items():
        if paths and not any(label_file(path) for path in paths):
            findings.fault("no labels", paths[0].parent, f"{split}: none of {len(paths)} images has a label file")
    read = {
        split: [image for path in paths if (image := _read_image(path, layout, findings))]
        for split, paths in layout.splits.items()
    }
    _note_spare_labels(dataset, layout, findings)
    names = layout.names
    if names is None:
        used = {item["category_id"] for images in read.values() for image in images for item in image.objects}
        names = {number - 1: f"class_{number - 1}" for number in sorted(used)}
    return AnnotatedSet({index + 1: name for index, name in names.items()}, read, layout.why, findings)


# --- labels


def _read_image(path: Path, layout: Layout, findings: Findings) -> AnnotatedImage | None:
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
    seen: set[tuple[str, ...]] = set()
    for number, line in numbered:
        words = tuple(line.split())
        if words in seen:
            findings.note("objects are there twice, and count once", f"{labels}:{number}")
            continue
        seen.add(words)
        try:
            annotation = parse_object(words, layout.names, layout.keypoints, width, height)
        except ValueError as error:
            findings.fault("malformed line", f"{labels}:{number}", f"{error}: {line[:80]!r}")
            continue
        if annotation is None:
            findings.note(LEFT_OUT, f"{labels}:{number}")
            continue
        if "segmentation" not in annotation and reaches_over(words, width, height):
            findings.note(CUT, f"{labels}:{number}")
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
    return {path.stem: path for path in visible(folder) if path.suffix.lower() == ".txt"}


def _note_spare_labels(dataset: Path, layout: Layout, findings: Findings) -> None:
    """Count the label files that belong to no image, of a set that was read whole and not by lists."""
    folders: dict[Path, set[str]] = {}
    for folder in {path.parent for paths in layout.splits.values() for path in paths}:
        stems = {path.stem for path in visible(folder) if is_image_name(path)}
        for place in _label_folders(folder):
            folders.setdefault(place, set()).update(stems)
    labels = child(dataset, "labels") if dataset.is_dir() else None
    for path in files_in(labels) if labels else ():  # those of splits that have no images
        folders.setdefault(path.parent, set())
    for place, stems in folders.items():
        for stem, path in _texts_in(place).items():
            if stem not in stems and stem.lower() not in _NO_LABELS and not stem.lower().startswith("readme"):
                findings.note("label files have no image and are left out", path)
