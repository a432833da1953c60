"""Which files of a folder are taken for images."""

from pathlib import Path

from slimdet.images.folders import images_in, unread_in


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
