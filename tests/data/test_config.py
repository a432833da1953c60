"""DATA.yaml: paths relative to the file, and errors that name file and key."""

import os
from pathlib import Path

import pytest

from slimdet.data.config import Split, read_data_config
from slimdet.errors import ConfigError

BOTH = """
train: {images: images, annotations: annotations/train.json}
val:
  images: images
  annotations: annotations/val.json
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    for name in ("train", "val"):
        (tmp_path / "annotations" / f"{name}.json").write_text("{}")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_annotations_are_no_data_set(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"DATA\.yaml .* 'val: \{images: FOLDER, annotations: val\.json\}'"):
        read_data_config(folder / "annotations" / "val.json")


def test_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(folder, BOTH)
    elsewhere = folder / "images"
    monkeypatch.chdir(elsewhere)
    config = read_data_config(Path("..") / "data.yaml")
    assert config.train is not None
    assert os.path.samefile(config.train.images, folder / "images")
    assert config.val is not None
    assert os.path.samefile(config.val.annotations, folder / "annotations" / "val.json")


def test_absolute_paths_and_one_split(folder: Path) -> None:
    images, annotations = folder / "images", folder / "annotations" / "val.json"
    config = read_data_config(written(folder, f"val: {{images: '{images}', annotations: '{annotations}'}}"))
    assert config.train is None
    assert config.val == Split(images, annotations)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty or has no keys"),
        ("just text", "is empty or has no keys"),
        ("train: [", "is not YAML"),
        ("train: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("{}", "has neither 'train:' nor 'val:'"),
        ("trian: {}", "unknown key 'trian', not one of train, val; did you mean train?"),
        (
            "train: {image: images}",
            "train: unknown key 'image', not one of images, annotations; did you mean images?",
        ),
        ("train: images", "train: is 'images'; it needs the keys 'images:' and 'annotations:'"),
        ("train: {images: images}", "train.annotations is None; it needs a path"),
        ("train: {images: 7, annotations: a}", "train.images is 7; it needs a path"),
        ("val: {images: pictures, annotations: annotations/val.json}", "val.images: no such folder"),
        ("val: {images: images, annotations: annotations/v.json}", "val.annotations: no such file"),
        ("val: {images: images, annotations: annotations}", "val.annotations: no such file"),
    ],
)
def test_errors_name_file_and_key(folder: Path, text: str, message: str) -> None:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        read_data_config(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_data_config(tmp_path / "data.yaml")
    (tmp_path / "data.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="is not YAML"):
        read_data_config(tmp_path / "data.yaml")
