"""An XML file of Pascal VOC: the objects of an image."""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from slimdet.data.annotations import is_number
from slimdet.errors import DataError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


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
