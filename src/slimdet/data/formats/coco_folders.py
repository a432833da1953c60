"""COCO instances as tools export them: JSON files in a folder, and somewhere near them the images."""

import mmap
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from slimdet.data.formats.annotated import Findings, Split, child, from_windows, visible
from slimdet.data.formats.reading import read_lists
from slimdet.errors import DataError
from slimdet.images.folders import UNREAD_HINT, images_in, unread_in

_OTHERS = re.compile(r"(captions|person_keypoints|panoptic|stuff|image_info)(_|$)")  # COCO's files of other kinds
_USUAL = re.compile(r"_?annotations|instances")  # how the names of instances files begin
_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SAMPLE = 20  # file names that are looked for, to find the folder


def coco_files(dataset: Path) -> dict[str, list[Path]]:
    """The COCO instances files of a folder by split: "train", "val", "test"; one that names no split is "train".

    Files of COCO's other kinds, some of which have boxes too, are among them where there is nothing else.
    """
    found = [file for file in _json_files(dataset) if _lists_in(file) == 3]
    usual = [file for file in found if not _OTHERS.match(file.stem)]
    files: dict[str, list[Path]] = {}
    for file in usual or found:
        files.setdefault(_split_of(file, dataset) or "train", []).append(file)
    return files


def cut_files(dataset: Path) -> list[Path]:
    """Files of a folder that are called as COCO instances are, and are empty or cut off."""
    called = [file for file in _json_files(dataset) if _USUAL.match(file.stem.lower()) or _split_of(file, dataset)]
    return [file for file in called if not _OTHERS.match(file.stem) and _is_cut(file)]


def read_coco_folder(dataset: Path, findings: Findings) -> dict[str, Split]:
    """The splits of a folder with COCO instances files, each with the folder that its file names start from.

    Raises:
        DataError: two files for a split, or a test split alone.
    """
    for file in cut_files(dataset):
        findings.fault("unreadable annotations", file, "is cut off" if file.stat().st_size else "is empty")
    files = coco_files(dataset)
    used = {file for some in files.values() for file in some}
    for file in _json_files(dataset):
        if file not in used and _OTHERS.match(file.stem) and _lists_in(file):
            findings.note("file of COCO's other kinds is not read", file)
    tests = files.pop("test", [])
    for file in tests:
        findings.note("file of a test split is not read", file)
    if tests and not files and not findings.faults:
        raise DataError(f"{dataset}: has a test split alone; write a DATA.yaml that names {tests[0]} as its val")
    for split, some in files.items():
        if len(some) > 1:
            raise DataError(f"{dataset}: {' and '.join(map(str, some[:2]))} may both be its {split}; write a DATA.yaml")
    return {split: Split(_images_of(some[0], split, dataset), some[0]) for split, some in files.items()}


def unlisted(dataset: Path, splits: Iterable[Split]) -> list[str]:
    """A line for each kind of picture in the folders of the splits that no file of the data set lists.

    Raises:
        DataError: as `slimdet.data.formats.reading.read_lists`.
    """
    tests = [Split(_images_of(file, "test", dataset), file) for file in coco_files(dataset).get("test", [])]
    splits, findings = list(splits), Findings()
    listed = {file for split in [*splits, *tests] for file in _listed(split)}
    for folder in sorted({split.images for split in splits}):
        for path in images_in(folder):
            if os.path.normpath(path) not in listed:
                findings.note("images are in no annotation file and are left out", path)
        for path in unread_in(folder):
            findings.note(f"photographs are not read; {UNREAD_HINT}", path)
    return findings.notes


def _listed(split: Split) -> Iterator[str]:
    for name, records in read_lists(split.annotations):
        for one in records if name == "images" else ():
            if isinstance(one, dict) and isinstance(file := one.get("file_name"), str):
                yield os.path.normpath(split.images / from_windows(file))


def _json_files(dataset: Path) -> list[Path]:
    """The JSON files in a folder and in those directly in it."""
    entries = visible(dataset) if dataset.is_dir() else []
    entries += [inner for entry in entries if entry.is_dir() for inner in visible(entry)]
    return [path for path in entries if path.suffix.lower() == ".json" and path.is_file()]


def _lists_in(file: Path) -> int:
    """How many of COCO's three lists a file speaks of."""
    if not file.stat().st_size:
        return 0
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return sum(content.find(word) >= 0 for word in (b'"images"', b'"annotations"', b'"categories"'))


def _is_cut(file: Path) -> bool:
    if not file.stat().st_size:
        return True
    if _lists_in(file) not in (1, 2):  # what has all of them is read, and told then
        return False
    try:
        for _ in read_lists(file):
            pass
    except DataError as error:
        return "is not JSON" in str(error)
    return False


def _split_of(file: Path, dataset: Path) -> str | None:
    words = [file.stem, *([file.parent.name] if file.parent != dataset else [])]
    for word in (part for name in words for part in re.findall(r"[a-z]+", name.lower())):
        if word in _WORDS:
            return _WORDS[word]
    return None


def _images_of(annotations: Path, split: str, dataset: Path) -> Path:
    """The folder near the file in which most of its first images are."""
    names = next((records for name, records in read_lists(annotations) if name == "images"), [])[:_SAMPLE]
    given = [one.get("file_name") for one in names if isinstance(one, dict)]
    files = [from_windows(name) for name in given if isinstance(name, str) and name]
    bases = list(dict.fromkeys((annotations.parent, dataset)))
    places = [place for base in bases for place in (base, child(base, "images")) if place is not None]
    inner = [entry for place in places for entry in sorted(place.iterdir()) if entry.is_dir()]
    places += sorted(inner, key=lambda entry: not entry.name.lower().startswith(split))
    # not Path.is_file, which raises for a name that is too long
    return max(places, key=lambda place: sum(os.path.isfile(place / PurePosixPath(file)) for file in files))
