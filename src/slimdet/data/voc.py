"""Pascal VOC data sets: one XML file per image.

VOC counts pixels from 1 and names the last one inside a box: xmin..xmax is x1 = xmin - 1, x2 = xmax in half-open
coordinates from 0. Objects marked difficult neither train nor count in VOC's own evaluation; COCO's way of saying so
is `iscrowd: 1`.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from slimdet.data.annotations import AnnotatedImage, AnnotatedSet, boxed, lines
from slimdet.errors import DataError
from slimdet.images.decoding import image_size
from slimdet.images.folders import is_image_name

SPLIT_FILES = {"train": ("train.txt", "trainval.txt"), "val": ("val.txt", "test.txt")}


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
    trees = {name: [(file, _parse(file)) for file in files] for name, files in _splits(dataset, layout).items()}
    names = sorted(
        {_text(item, "name", file) for split in trees.values() for file, tree in split for item in _of(tree)}
    )
    ids = {name: number for number, name in enumerate(names, 1)}
    splits = {
        split: [_read_image(file, tree, layout.images, by_stem, ids) for file, tree in pairs]
        for split, pairs in trees.items()
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


def _parse(file: Path) -> Element:
    """Parse XML, refusing document types: entities can grow without bounds or name other files."""

    def refuse(*_: Any) -> None:
        raise DataError(
            f"{file}:{parser.CurrentLineNumber}: has a document type (DTD), which an annotation does not need"
        )

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(file.read_bytes(), True)
    except expat.ExpatError as error:
        raise DataError(f"{file}:{error.lineno}: is not XML: {expat.ErrorString(error.code)}") from None
    return builder.close()


def _read_image(
    file: Path, tree: Element, images: Path, by_stem: dict[str, Path], ids: dict[str, int]
) -> AnnotatedImage:
    # The XML's own file name is often that of another machine's copy; the stem is what VOC goes by.
    path = by_stem.get(file.stem) or images / (tree.findtext("filename") or file.stem)
    if not path.is_file():
        raise DataError(f"{file}: no image of that name in {images}")
    width, height = image_size(path)
    stated = [(tree.findtext(f"size/{side}") or "0").strip() for side in ("width", "height")]
    if stated not in ([str(width), str(height)], ["0", "0"]):  # some tools leave the size out or at 0
        raise DataError(f"{file}: says {stated[0]}x{stated[1]}, but {path} has {width}x{height} pixels")
    return AnnotatedImage(path, width, height, [_object(item, file, ids, width, height) for item in _of(tree)])


def _of(tree: Element) -> list[Element]:
    return tree.findall("object")


def _object(item: Element, file: Path, ids: dict[str, int], width: int, height: int) -> dict[str, Any]:
    name = _text(item, "name", file)
    values = []
    for corner in ("xmin", "ymin", "xmax", "ymax"):
        text = _text(item, f"bndbox/{corner}", file)
        try:
            values.append(float(text))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise DataError(f"{file}: object {name!r}: {corner} is {text!r}, not a number")
    xmin, ymin, xmax, ymax = values
    try:
        annotation = boxed(ids[name], (xmin - 1, ymin - 1, xmax, ymax), width, height)
    except ValueError as error:
        raise DataError(f"{file}: object {name!r}: {error}: {values} in {width}x{height} pixels") from None
    difficult = int((item.findtext("difficult") or "0").strip() == "1")
    return annotation | {"iscrowd": difficult, "ignore": difficult}


def _text(item: Element, path: str, file: Path) -> str:
    text = (item.findtext(path) or "").strip()
    if not text:
        raise DataError(f"{file}: an object without {path}")
    return text
