"""What --data names: a DATA.yaml with the images and annotations of each split, or a folder as tools export it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slimdet.data.annotations import Fault
from slimdet.data.formats.annotated import Split, from_windows
from slimdet.data.formats.recognition import recognise
from slimdet.data.formats.yolo_yaml import is_yolo_yaml
from slimdet.errors import ConfigError, DataError
from slimdet.messages import did_you_mean

logger = logging.getLogger("slimdet")

SPLITS = ("train", "val")
PATHS = ("images", "annotations")


@dataclass(frozen=True)
class DataConfig:
    """The splits of a data set; None where the file does not name one."""

    train: Split | None
    val: Split | None


@dataclass(frozen=True)
class OpenedData:
    """A data set that was given as `--data`, and what was met reading it.

    Attributes:
        config: its splits.
        why: what it was taken for, and by what; empty for a DATA.yaml.
        notes: what was left out, or taken as something, each with its number.
        faults: what nothing can be made of.
    """

    config: DataConfig
    why: str = ""
    notes: Sequence[str] = ()
    faults: Sequence[Fault] = ()


def read_data_config(path: str | Path) -> DataConfig:
    """Read a data set: a DATA.yaml, or a folder as annotation tools export it (`slimdet.data.formats.recognition`).

    A DATA.yaml has `train:` and `val:`, each with `images:` and `annotations:`, relative to the file. What a folder was
    taken for is logged, and what is left out of it.

    Raises:
        ConfigError: no such file, not YAML, a key that is missing or not known, or a path that does not exist.
        DataError: a folder with faults; the first is named.
    """
    opened = open_data(path)
    if opened.faults:
        more = f" (and {len(opened.faults) - 1} more faults)" if len(opened.faults) > 1 else ""
        raise DataError(f"{opened.faults[0]}{more}; list them all with 'slimdet check --data {path}'")
    if opened.why:
        logger.info("%s is %s", path, opened.why)
    for note in opened.notes:
        logger.warning("%s: %s", path, note)
    return opened.config


def open_data(path: str | Path) -> OpenedData:
    """Read a data set as `read_data_config` does; faults of a folder are given back, all of them.

    Raises:
        ConfigError, DataError: as `read_data_config`, but for the faults.
    """
    path = Path(path).expanduser()
    own = next((file for name in ("data.yaml", "data.yml") if (file := path / name).is_file()), None)
    if path.is_dir() and (own is None or is_yolo_yaml(own)):
        return _recognised(path)
    path = own if path.is_dir() and own else path
    if path.suffix.lower() == ".json" and path.is_file():  # large ones take YAML's reader minutes
        text = f"'val: {{images: FOLDER, annotations: {path.name}}}'"
        raise ConfigError(f"{path}: annotations alone; give their folder, or write a DATA.yaml beside them with {text}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: is empty or has no keys; it needs 'train:' or 'val:' with 'images:' and 'annotations:'"
        )
    if is_yolo_yaml(path):
        return _recognised(path)
    _check_keys(content, SPLITS, f"{path}: ")
    splits = {name: _split(content[name], name, path) for name in SPLITS if content.get(name) is not None}
    if not splits:
        raise ConfigError(f"{path}: has neither 'train:' nor 'val:'")
    return OpenedData(_config(splits))


def _recognised(path: Path) -> OpenedData:
    found = recognise(path)
    return OpenedData(_config(found.splits), found.why, found.notes, found.faults)


def _config(splits: Mapping[str, Split]) -> DataConfig:
    return DataConfig(train=splits.get("train"), val=splits.get("val"))


def read_val_split(path: str | Path) -> Split:
    """The `val:` of a DATA.yaml.

    Raises:
        ConfigError: as `read_data_config`.
        DataError: it has none.
    """
    split = read_data_config(path).val
    if split is None:
        raise DataError(f"{path} has no 'val:'")
    return split


def _split(content: Any, name: str, path: Path) -> Split:
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: {name}: is {content!r}; it needs the keys 'images:' and 'annotations:'")
    _check_keys(content, PATHS, f"{path}: {name}: ")
    found: dict[str, Path] = {}
    for key in PATHS:
        value = content.get(key)
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{path}: {name}.{key} is {value!r}; it needs a path, relative to the file")
        found[key] = path.parent / Path(from_windows(value)).expanduser()
        if not (found[key].is_dir() if key == "images" else found[key].is_file()):
            raise ConfigError(f"{path}: {name}.{key}: no such {'folder' if key == 'images' else 'file'}: {found[key]}")
    return Split(**found)


def _check_keys(content: dict[Any, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in allowed:
            hint = did_you_mean(str(key), allowed)
            raise ConfigError(f"{where}unknown key {key!r}, not one of {', '.join(allowed)}{hint}")
