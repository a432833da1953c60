"""Which files of a folder are taken for images."""

from pathlib import Path

from slimdet.images.folders import images_in


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
