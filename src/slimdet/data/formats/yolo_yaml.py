"""A data.yaml of Ultralytics, Roboflow or CVAT: class names, and where the images of each split are."""

import math
from pathlib import Path
from typing import Any

import yaml

from slimdet.data.formats.annotated import Findings, from_windows, visible
from slimdet.data.formats.yolo_images import TEST, VAL_NAMES, Layout, in_folder, in_list
from slimdet.errors import DataError

MOST_CLASSES = 100_000
_YAML_STEMS = ("data", "dataset")


def yaml_of(dataset: Path) -> Path | None:
    """The data.yaml of a folder, or the file itself."""
    if dataset.is_file():
        return dataset if is_yolo_yaml(dataset) else None
    found = [path for path in visible(dataset) if path.suffix.lower() in (".yaml", ".yml") and path.is_file()]
    found.sort(key=lambda path: (path.stem not in _YAML_STEMS, path.name))
    return next((path for path in found if _may_be_yolo(path)), None)


def _may_be_yolo(file: Path) -> bool:
    """`is_yolo_yaml`; a file of another name that cannot be read has nothing to do with the data."""
    try:
        return is_yolo_yaml(file)
    except DataError:
        if file.stem in _YAML_STEMS:
            raise
        return False


def is_yolo_yaml(file: Path) -> bool:
    """Whether a YAML file describes a YOLO data set, and not slimdet's own train: and val:."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        return False
    content = _parse_yaml(file)
    if not isinstance(content, dict):
        return False
    return "names" in content or "nc" in content or isinstance(content.get("train"), list)


class _Texts(yaml.BaseLoader):
    """All values as text, as YAML makes other things of on, off, no, 007 and 1e3; no key is there twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _given(content: dict[str, Any], name: str) -> Any:
    """A value of a data.yaml; None where YAML says that there is none."""
    value = content.get(name)
    return None if isinstance(value, str) and value.lower() in ("", "~", "null") else value


def _parse_yaml(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8-sig"), _Texts)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as YAML: {' '.join(str(error).split())}") from None


def from_yaml(file: Path, findings: Findings) -> Layout:
    content = _parse_yaml(file)
    names = _names(file, content)
    said = from_windows(str(_given(content, "path") or "."))
    root = file.parent / Path(said).expanduser()
    if not root.is_dir():  # a path of the machine that it was made on
        findings.note("path is not here, and all others start from the file's folder", f"{file}: {said}")
        root = file.parent
    val = next((value for name in VAL_NAMES if (value := _given(content, name))), None)
    given = {"train": _given(content, "train"), "val": val}
    splits = {name: _images(value, root, file, name, findings) for name, value in given.items() if value}
    if not splits:
        raise DataError(f"{file}: has neither 'train:' nor 'val:'")
    if test := _given(content, "test"):
        findings.note(TEST, f"{file}: {test}")
    shape = _given(content, "kpt_shape") or ["0"]
    if not isinstance(shape, list) or not all(isinstance(one, str) and one.isdecimal() for one in shape):
        raise DataError(f"{file}: kpt_shape is {shape!r:.200}; it needs two numbers, as [17, 3]")
    return Layout(f"YOLO, by {file}", names, math.prod(map(int, shape)), splits)


def _names(file: Path, content: dict[str, Any]) -> dict[int, str] | None:
    given, number = content.get("names"), _given(content, "nc")
    if given is None and isinstance(number, str) and number.isdecimal() and 0 < int(number) <= MOST_CLASSES:
        return {index: f"class_{index}" for index in range(int(number))}
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
        found += in_folder(place, findings) if place.is_dir() else in_list(place, root, findings)
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
