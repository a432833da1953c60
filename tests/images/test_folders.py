"""Which files of a folder are taken for images."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimdet.errors import ImageError
from slimdet.images.decoding import read_image
from slimdet.images.folders import SUFFIXES, UNREAD, files_in, images_in, is_image_name, unread_in


def test_images_of_a_folder_and_those_under_it(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.jfif", "deep/er/d.tiff", "notes.txt", "._a.png", ".hidden.jpg", "jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [str(path.relative_to(tmp_path)) for path in images_in(tmp_path)] == [
        "a.png",
        "b.JPG",
        "c.jfif",
        "deep/er/d.tiff",
    ]


def test_folders_that_are_links_are_gone_through_once(tmp_path: Path) -> None:
    (tmp_path / "store" / "deep").mkdir(parents=True)
    (tmp_path / "store" / "deep" / "1.JPG").touch()
    (tmp_path / "store" / "2.heic").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "camera").symlink_to("../store")
    (tmp_path / "store" / "up").symlink_to("..")
    (tmp_path / "store" / "back").symlink_to("../set")
    (tmp_path / "store" / "itself").symlink_to(".")
    assert images_in(tmp_path / "set") == [tmp_path / "set" / "camera" / "deep" / "1.JPG"]
    assert unread_in(tmp_path / "set") == [tmp_path / "set" / "camera" / "2.heic"]


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    for name in (".cache/1.jpg", "a/.thumbnails/2.jpg", "a/._3.heic", "a/4.jpg"):
        (tmp_path / ".set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".set" / name).touch()
    assert list(files_in(tmp_path / ".set")) == [tmp_path / ".set" / "a" / "4.jpg"]


def test_links_that_lead_to_nothing_fail_when_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "lost.jpg").symlink_to("gone.jpg")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "to-pipe.jpg").symlink_to("pipe.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    assert images_in(tmp_path) == [tmp_path / "itself.jpg", tmp_path / "lost.jpg"]
    for path in images_in(tmp_path):
        with pytest.raises(ImageError, match=path.name):
            read_image(path)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".dib", "BMP"),
        (".pnm", "PPM"),
        (".pbm", "PPM"),
        (".j2k", "JPEG2000"),
        (".jpx", "JPEG2000"),
        (".jp2", "JPEG2000"),
    ],
)
def test_suffixes_of_what_is_read(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a{suffix}"
    image, buffer = Image.new("1" if suffix == ".pbm" else "RGB", (8, 8), 1), io.BytesIO()
    image.save(buffer, kind, **({"no_jp2": True} if suffix == ".j2k" else {}))
    path.write_bytes(buffer.getvalue())
    assert is_image_name(path)
    np.testing.assert_array_equal(read_image(path), image.convert("RGB"))


def test_no_suffix_is_of_both_kinds() -> None:
    assert not SUFFIXES & UNREAD
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES | UNREAD)
