"""Pascal VOC data sets: one XML file per image.

VOC counts pixels from 1 and names the last one inside a box: xmin..xmax is x1 = xmin - 1, x2 = xmax in half-open
coordinates from 0. Objects marked difficult neither train nor count in VOC's own evaluation; COCO's way of saying so
is `iscrowd: 1`.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from slimdet.data.annotations import AnnotatedImage, AnnotatedSet, boxed, is_number, lines
from slimdet.errors import DataError
from slimdet.images.decoding import image_size
from slimdet.images.folders import is_image_name

CORNERS = ("xmin", "ymin", "xmax", "ymax")
SPLIT_FILES = {"train": ("train.txt", "trainval.txt"), "val": ("val.txt", "test.txt")}


class VocObject(NamedTuple):
    """An object as it is written: corners xmin, ymin, xmax, ymax in pixels, counted from 1, the last one included."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


class VocAnnotation(NamedTuple):
    """What an XML file says; `size` is (width, height), None where some tools leave it out or at 0."""

    filename: str
    size: tuple[int, int] | None
    objects: list[VocObject]


def read_annotation(file: Path) -> VocAnnotation:
    """Read one XML file.

    Raises:
        DataError: no such file, not XML, with a document type, or an object without a name and four finite corners.
    """
    tree = _parse(file)
    width, height = (_number(tree, f"size/{side}", str(file), "0") for side in ("width", "height"))
    objects = []
    for item in tree.findall("object"):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{file}: an object without name")
        xmin, ymin, xmax, ymax = (_number(item, f"bndbox/{corner}", f"{file}: object {name!r}") for corner in CORNERS)
        difficult = (item.findtext("difficult") or "").strip() == "1"
        objects.append(VocObject(name, (xmin, ymin, xmax, ymax), difficult))
    size = (int(width), int(height)) if width or height else None
    return VocAnnotation(tree.findtext("filename") or "", size, objects)


def _parse(file: Path) -> Element:
    """Parse XML, refusing document types: entities can grow without bounds or name other files."""

    def refuse(*_: Any) -> None:
        raise DataError(
            f"{file}:{parser.CurrentLineNumber}: has a document type (DTD), which an annotation does not need"
        )

    try:
        content = file.read_bytes()
        if declared := re.match(rb"""<\?xml[^>]*encoding=["']([\w.-]+)""", content):
            content = content.decode(declared[1].decode()).encode()  # expat knows few encodings; GB2312 it does not
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    except (UnicodeError, LookupError) as error:
        raise DataError(f"{file}: its encoding cannot be read: {error}") from None
    builder = TreeBuilder()
    parser = expat.ParserCreate("utf-8" if declared else None)
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise DataError(f"{file}:{error.lineno}: is not XML: {expat.ErrorString(error.code)}") from None
    return builder.close()


def _number(item: Element, path: str, where: str, default: str = "nothing") -> float:
    text = (item.findtext(path) or default).strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_number(value):
        raise DataError(f"{where}: {path} is {text!r}, not a number")
    return value


# ------------------------------------------------------------------------------------------------- a data set


class _Layout(NamedTuple):
    annotations: Path
    images: Path


def is_voc(dataset: Path) -> bool:
    """Whether a folder looks like a VOC data set."""
    return _layout(dataset) is not None


def read_voc(dataset: Path) -> AnnotatedSet:
    """Read a VOC data set: Annotations/*.xml, JPEGImages/, ImageSets/Main/{train,val}.txt, or XML beside the images.

    Without lists of splits, everything is "train". Category ids follow the alphabet.

    Raises:
        DataError: a malformed XML file, named; an image or annotation that is listed and does not exist.
        ImageError: an image whose size cannot be read.
    """
    layout = _layout(dataset)
    if layout is None:
        raise DataError(f"{dataset}: no folder Annotations with XML files")
    by_stem = {path.stem: path for path in sorted(layout.images.iterdir()) if is_image_name(path)}
    read = {name: [(file, read_annotation(file)) for file in files] for name, files in _splits(dataset, layout).items()}
    names = sorted({item.name for pairs in read.values() for _, annotation in pairs for item in annotation.objects})
    ids = {name: number for number, name in enumerate(names, 1)}
    splits = {
        split: [_read_image(file, annotation, layout.images, by_stem, ids) for file, annotation in pairs]
        for split, pairs in read.items()
    }
    return AnnotatedSet({number: name for name, number in ids.items()}, splits)


def _layout(dataset: Path) -> _Layout | None:
    for annotations in (dataset / "Annotations", dataset / "annotations", dataset):
        if annotations.is_dir() and next(annotations.glob("*.xml"), None):
            folders = (dataset / "JPEGImages", dataset / "images", annotations)
            return _Layout(annotations, next(folder for folder in folders if folder.is_dir()))
    return None


def _splits(dataset: Path, layout: _Layout) -> dict[str, list[Path]]:
    splits = {}
    for name, files in SPLIT_FILES.items():
        listing = next((f for f in (dataset / "ImageSets" / "Main" / file for file in files) if f.is_file()), None)
        if listing is not None:
            splits[name] = list(_listed(listing, layout.annotations))
    return {name: files for name, files in splits.items() if files} or {
        "train": sorted(layout.annotations.glob("*.xml"))
    }


def _listed(listing: Path, annotations: Path) -> Iterator[Path]:
    for number, line in lines(listing):
        file = annotations / f"{line.split()[0]}.xml"
        if not file.is_file():
            raise DataError(f"{listing}:{number}: no such annotation: {file}")
        yield file


def _read_image(
    file: Path, annotation: VocAnnotation, images: Path, by_stem: dict[str, Path], ids: dict[str, int]
) -> AnnotatedImage:
    # The XML's own file name is often that of another machine's copy; the stem is what VOC goes by.
    path = by_stem.get(file.stem) or images / (annotation.filename or file.stem)
    if not path.is_file():
        raise DataError(f"{file}: no image of that name in {images}")
    width, height = image_size(path)
    if annotation.size not in ((width, height), None):
        stated = "x".join(map(str, annotation.size))
        raise DataError(f"{file}: says {stated}, but {path} has {width}x{height} pixels")
    objects = [_object(item, file, ids, width, height) for item in annotation.objects]
    return AnnotatedImage(path, width, height, objects)


def _object(item: VocObject, file: Path, ids: dict[str, int], width: int, height: int) -> dict[str, Any]:
    xmin, ymin, xmax, ymax = item.corners
    try:
        annotation = boxed(ids[item.name], (xmin - 1, ymin - 1, xmax, ymax), width, height)
    except ValueError as error:
        where = f"{list(item.corners)} in {width}x{height} pixels"
        raise DataError(f"{file}: object {item.name!r}: {error}: {where}") from None
    return annotation | {"iscrowd": int(item.difficult), "ignore": int(item.difficult)}
