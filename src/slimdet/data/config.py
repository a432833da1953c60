"""DATA.yaml: where the images and annotations of each split are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slimdet.errors import ConfigError, DataError
from slimdet.messages import did_you_mean

SPLITS = ("train", "val")
PATHS = ("images", "annotations")


@dataclass(frozen=True)
class Split:
    """A folder of images and the COCO instances JSON that goes with it."""

    images: Path
    annotations: Path


@dataclass(frozen=True)
class DataConfig:
    """The splits of a data set; None where the file does not name one."""

    train: Split | None
    val: Split | None


def read_data_config(path: str | Path) -> DataConfig:
    """Read a DATA.yaml: `train:` and `val:`, each with `images:` and `annotations:`, relative to the file.

    Raises:
        ConfigError: no such file, annotations in its place, not YAML, a key that is missing or not known, or a path
            that does not exist.
    """
    path = Path(path)
    if path.suffix.lower() == ".json" and path.is_file():  # large ones take YAML's reader minutes
        text = f"'val: {{images: FOLDER, annotations: {path.name}}}'"
        raise ConfigError(f"{path}: annotations alone; write a DATA.yaml beside them with {text}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: is empty or has no keys; it needs 'train:' or 'val:' with 'images:' and 'annotations:'"
        )
    if "names" in content:
        raise ConfigError(f"{path}: is a YOLO data set; make it COCO with 'slimdet convert {path.parent} --to coco'")
    _check_keys(content, SPLITS, f"{path}: ")
    splits = {name: _split(content[name], name, path) for name in SPLITS if content.get(name) is not None}
    if not splits:
        raise ConfigError(f"{path}: has neither 'train:' nor 'val:'")
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
        found[key] = path.parent / Path(value).expanduser()
        if not (found[key].is_dir() if key == "images" else found[key].is_file()):
            raise ConfigError(f"{path}: {name}.{key}: no such {'folder' if key == 'images' else 'file'}: {found[key]}")
    return Split(**found)


def _check_keys(content: dict[Any, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in allowed:
            hint = did_you_mean(str(key), allowed)
            raise ConfigError(f"{where}unknown key {key!r}, not one of {', '.join(allowed)}{hint}")
