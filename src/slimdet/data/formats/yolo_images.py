"""Which images a YOLO data set has: those of a folder or of a list."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from slimdet.data.formats.annotated import Findings, lines, without_prefix
from slimdet.images.folders import UNREAD, UNREAD_HINT, images_in, is_image_name, unread_in

VAL_NAMES = ("val", "valid", "validation")
TEST = "test split is not read"


@dataclass
class Layout:
    """What a data set says of itself: class names by number (None: none are told), numbers of keypoints, images."""

    why: str
    names: dict[int, str] | None
    keypoints: int = 0
    splits: dict[str, list[Path]] = field(default_factory=dict)


def in_folder(folder: Path, findings: Findings) -> list[Path]:
    for path in unread_in(folder):
        findings.note(f"photographs are not read; {UNREAD_HINT}", path)
    return images_in(folder)


def in_list(file: Path, root: Path, findings: Findings) -> list[Path]:
    found = []
    starts = list(dict.fromkeys((file.parent, root)))
    for number, line in lines(file):
        path = next((path for path in without_prefix(line, starts) if os.path.isfile(path)), None)
        if path is not None and path.suffix.lower() in UNREAD:
            findings.note(f"photographs are not read; {UNREAD_HINT}", path)
        elif path is None or not is_image_name(path):
            findings.fault("missing image", f"{file}:{number}", f"no such image: {line}")
        else:
            found.append(path)
    return found
