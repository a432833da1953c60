"""COCO instances as tools export them: JSON files in a folder, and somewhere near them the images."""

import mmap
import re
from pathlib import Path, PurePosixPath

from slimdet.data.formats.annotated import Findings, Split, child, from_windows
from slimdet.data.formats.reading import read_lists
from slimdet.errors import DataError

_OTHERS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")  # COCO's files of other kinds
_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SAMPLE = 20  # file names that are looked for, to find the folder


def coco_files(dataset: Path) -> dict[str, list[Path]]:
    """The COCO instances files of a folder by split: "train", "val", "test"; one that names no split is "train"."""
    found: dict[str, list[Path]] = {}
    if not dataset.is_dir():
        return found
    for file in sorted(path for pattern in ("*.json", "*/*.json") for path in dataset.glob(pattern)):
        if not file.stem.startswith(_OTHERS) and _is_coco(file):
            found.setdefault(_split_of(file, dataset), []).append(file)
    return found


def read_coco_folder(dataset: Path, findings: Findings) -> dict[str, Split]:
    """The splits of a folder with COCO instances files, each with the folder that its file names start from.

    Raises:
        DataError: two files for a split.
    """
    files = coco_files(dataset)
    for file in files.pop("test", []):
        findings.note("file of a test split is not read", file)
    for split, some in files.items():
        if len(some) > 1:
            raise DataError(f"{dataset}: {' and '.join(map(str, some[:2]))} may both be its {split}; write a DATA.yaml")
    return {split: Split(_images_of(some[0], split, dataset), some[0]) for split, some in files.items()}


def _is_coco(file: Path) -> bool:
    if not file.is_file() or not file.stat().st_size:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(content.find(b'"' + word + b'"') >= 0 for word in (b"images", b"annotations", b"categories"))


def _split_of(file: Path, dataset: Path) -> str:
    words = [file.stem, *([file.parent.name] if file.parent != dataset else [])]
    for word in (part for name in words for part in re.findall(r"[a-z]+", name.lower())):
        if word in _WORDS:
            return _WORDS[word]
    return "train"


def _images_of(annotations: Path, split: str, dataset: Path) -> Path:
    """The folder near the file in which most of its first images are."""
    names = next((records for name, records in read_lists(annotations) if name == "images"), [])[:_SAMPLE]
    given = [one.get("file_name") for one in names if isinstance(one, dict)]
    files = [from_windows(name) for name in given if isinstance(name, str) and name]
    bases = list(dict.fromkeys((annotations.parent, dataset)))
    places = [place for base in bases for place in (base, child(base, "images")) if place is not None]
    inner = [entry for place in places for entry in sorted(place.iterdir()) if entry.is_dir()]
    places += sorted(inner, key=lambda entry: not entry.name.lower().startswith(split))
    return max(places, key=lambda place: sum((place / PurePosixPath(file)).is_file() for file in files))
