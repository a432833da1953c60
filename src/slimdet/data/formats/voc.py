"""Pascal VOC data sets: one XML file per image (`slimdet.data.formats.voc_xml`).

VOC counts pixels from 1 and names the last one inside a box: xmin..xmax is x1 = xmin - 1, x2 = xmax in half-open
coordinates from 0. Objects marked difficult neither train nor count in VOC's own evaluation; COCO's way of saying so
is `iscrowd: 1`.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from slimdet.data.formats.annotated import (
    CUT,
    LEFT_OUT,
    AnnotatedImage,
    AnnotatedSet,
    Findings,
    boxed,
    child,
    from_windows,
    lines,
    reaches_out,
)
from slimdet.data.formats.voc_xml import VocAnnotation, VocObject, read_annotation
from slimdet.data.formats.yolo_images import TEST, VAL_NAMES
from slimdet.errors import DataError, ImageError
from slimdet.images.decoding import size_and_orientation
from slimdet.images.folders import UNREAD_HINT, files_in, images_in, unread_in
from slimdet.images.orientation import BOX_TURNS

VAL_FILES = tuple(f"{name}.txt" for name in VAL_NAMES)
SPLIT_FILES = {"train": ("train.txt", "trainval.txt", "default.txt"), "val": (*VAL_FILES, "test.txt")}


class _Layout(NamedTuple):
    annotations: Path
    images: Path


def is_voc(dataset: Path) -> bool:
    """Whether a folder looks like a VOC data set."""
    return bool(_layouts(dataset))


def read_voc(dataset: Path) -> AnnotatedSet:
    """Read a VOC data set: Annotations/, JPEGImages/ and ImageSets/Main/{train,val}.txt; or XML beside the images.

    The last may lie in the folder itself, or in train/ and valid/. Without lists of splits, everything is "train".
    Category ids follow the alphabet.

    Raises:
        DataError: there are no XML files.
    """
    findings, layouts = Findings(), _layouts(dataset)
    if not layouts:
        raise DataError(f"{dataset}: no folder Annotations with XML files")
    read: dict[str, list[tuple[Path, VocAnnotation, _Layout]]] = {}
    for name, layout in layouts.items():
        for split, files in _splits(dataset, name, layout, findings).items():
            read[split] = [(file, found, layout) for file in files if (found := _annotation(file, findings))]
    names = sorted({item.name for one in read.values() for _, found, _ in one for item in found.objects})
    reader = _Reader({name: number for number, name in enumerate(names, 1)}, findings)
    splits = {split: [image for one in found if (image := reader.image(*one))] for split, found in read.items()}
    for layout in layouts.values():
        reader.note_spare(layout)
    if "" not in layouts and (test := child(dataset, "test")) and test.is_dir():
        findings.note(TEST, test)
    why = f"Pascal VOC, by the XML files in {', '.join(str(layout.annotations) for layout in layouts.values())}"
    return AnnotatedSet({number: name for name, number in reader.ids.items()}, splits, why, findings)


def _layouts(dataset: Path) -> dict[str, _Layout]:
    """Where XML files and images are: of all splits, called "", or of "train" and "val" in folders of their own."""
    if not dataset.is_dir():
        return {}
    for annotations in (child(dataset, "annotations"), dataset):
        if annotations is not None and annotations.is_dir() and _has_xml(annotations, annotations != dataset):
            return {"": _Layout(annotations, child(dataset, "jpegimages", "images") or annotations)}
    layouts = {}
    for split, words in (("train", ("train",)), ("val", VAL_NAMES)):
        folder = child(dataset, *words)
        if folder is not None and folder.is_dir() and (inner := _layouts(folder).get("")):
            layouts[split] = inner
    return layouts


def _has_xml(folder: Path, deep: bool) -> bool:
    entries = files_in(folder) if deep else folder.iterdir()
    return any(path.suffix.lower() == ".xml" and not path.name.startswith(".") for path in entries)


def _xml_files(folder: Path) -> list[Path]:
    found = (path for path in files_in(folder) if path.suffix.lower() == ".xml" and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def _splits(dataset: Path, name: str, layout: _Layout, findings: Findings) -> dict[str, list[Path]]:
    if name:
        return {name: _xml_files(layout.annotations)}
    splits = {}
    lists = _lists(dataset)
    for split, files in SPLIT_FILES.items():
        listing = child(lists, *files) if lists else None
        if listing is not None:
            splits[split] = list(dict.fromkeys(_listed(listing, layout.annotations, findings)))
    if lists and splits.get("val") and child(lists, *VAL_FILES) and (test := child(lists, "test.txt")):
        findings.note(TEST, test)
    return {split: files for split, files in splits.items() if files} or {"train": _xml_files(layout.annotations)}


def _lists(dataset: Path) -> Path | None:
    """The folder of lists, ImageSets/Main."""
    above = child(dataset, "imagesets")
    return child(above, "main") if above else None


def _listed(listing: Path, annotations: Path, findings: Findings) -> Iterator[Path]:
    """The annotations that a list names: `000001`, `camera/000001`, or with a number behind."""
    for number, line in lines(listing):
        name = from_windows(line)
        places = [annotations / f"{one}{suffix}" for one in (name, name.split()[0]) for suffix in (".xml", ".XML")]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            findings.fault("missing annotation", f"{listing}:{number}", f"no such annotation: {places[-2]}")
        else:
            yield file


def _annotation(file: Path, findings: Findings) -> VocAnnotation | None:
    try:
        return read_annotation(file)
    except DataError as error:
        place, _, reason = str(error).partition(": ")
        findings.fault("malformed annotation", place, reason)
        return None


class _Reader:
    """Puts XML files and images together; each folder of images is listed once."""

    def __init__(self, ids: dict[str, int], findings: Findings) -> None:
        self.ids, self._findings = ids, findings
        self._images: dict[Path, dict[str, list[Path]]] = {}
        self._taken: set[Path] = set()

    def image(self, file: Path, annotation: VocAnnotation, layout: _Layout) -> AnnotatedImage | None:
        """The image of an XML file with its objects; None where there is none."""
        path = self._image_of(file, annotation, layout)
        if path is None:
            self._findings.note(f"annotations have no image in {layout.images} and are left out", file)
            return None
        if path in self._taken:
            self._findings.note("annotations are of an image that another file annotates too", file)
        self._taken.add(path)
        try:
            (width, height), orientation = size_and_orientation(path)
        except ImageError as error:
            self._findings.fault("unreadable image", path, str(error).removeprefix(f"{path}: "))
            return None
        # Some tools write what the file has before its EXIF orientation is applied.
        turn = BOX_TURNS.get(orientation) if annotation.size == (height, width) != (width, height) else None
        if turn is None and annotation.size not in ((width, height), None):
            stated = "x".join(map(str, annotation.size or ()))
            self._findings.fault("wrong size", file, f"says {stated}, but {path} has {width}x{height} pixels")
            return None
        if turn is not None:
            self._findings.note("annotations were made before their image was turned upright, and are turned too", file)
        image = AnnotatedImage(path, width, height)
        for item in annotation.objects:
            self._add(image, item, file, turn)
        return image

    def note_spare(self, layout: _Layout) -> None:
        """Count the images that no XML file is of, and the photographs that are not read."""
        if layout.images != layout.annotations and not self._lists_all(layout):
            return
        for path in (one for some in self._listed(layout.images).values() for one in some):
            if path not in self._taken:
                self._findings.note("images have no annotation and are left out", path)
        for path in unread_in(layout.images):
            self._findings.note(f"photographs are not read; {UNREAD_HINT}", path)

    def _lists_all(self, layout: _Layout) -> bool:
        return child(layout.annotations.parent, "imagesets") is None

    def _image_of(self, file: Path, annotation: VocAnnotation, layout: _Layout) -> Path | None:
        # The XML's own file name is often that of another machine's copy; the stem is what VOC goes by.
        images = self._listed(layout.images)
        named = PurePosixPath(from_windows(annotation.filename))
        keys = [file.relative_to(layout.annotations).with_suffix("").as_posix(), file.stem, named.stem]
        found = next((images[key] for key in keys if key in images), [])
        exact = [path for path in found if path.name == named.name]
        if len(found) > 1 and len(exact) != 1:
            names = " and ".join(path.name for path in found)
            self._findings.fault("more than one image", file, f"may be of {names}; its <filename> names none of them")
        return next(iter(exact or found), None)

    def _listed(self, folder: Path) -> dict[str, list[Path]]:
        """Images by their path in the folder without suffix."""
        if folder not in self._images:
            found = self._images[folder] = {}
            for path in images_in(folder):
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
        return self._images[folder]

    def _add(self, image: AnnotatedImage, item: VocObject, file: Path, turn: Any) -> None:
        xmin, ymin, xmax, ymax = item.corners
        corners = (xmin - 1, ymin - 1, xmax, ymax)
        if turn is not None:
            corners = turn(corners, image.width, image.height)
        try:
            annotation = boxed(self.ids[item.name], corners, image.width, image.height)
        except ValueError as error:
            where = f"{list(item.corners)} in {image.width}x{image.height} pixels"
            self._findings.fault("malformed box", file, f"object {item.name!r}: {error}: {where}")
            return
        if annotation is None:
            self._findings.note(LEFT_OUT, file)
            return
        if reaches_out(corners, image.width, image.height):
            self._findings.note(CUT, file)
        image.objects.append(annotation | {"iscrowd": int(item.difficult), "ignore": int(item.difficult)})
