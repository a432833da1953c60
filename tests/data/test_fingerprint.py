"""A data set is known again wherever it is, and another one is not taken for it."""

import shutil
from pathlib import Path

from slimdet.data.fingerprint import fingerprint


def test_content_counts_and_place_does_not(scenes: Path, tmp_path: Path) -> None:
    def of(folder: Path, names: tuple[str, ...] = ("1.png", "2.png")) -> str:
        return fingerprint(folder / "annotations.json", folder / "images", names)

    first = of(scenes.parent)
    moved = shutil.copytree(scenes.parent, tmp_path / "moved")
    (moved / "images" / "unlisted.png").touch()
    assert of(moved) == first
    assert of(moved, ("2.png", "1.png")) != first
    (moved / "annotations.json").write_text((moved / "annotations.json").read_text().replace("red", "Red"))
    assert of(moved) != first
    shutil.copy(scenes.parent / "annotations.json", moved)
    (moved / "images" / "2.png").write_bytes(b"another")
    changed = of(moved)
    assert changed != first
    (moved / "images" / "2.png").unlink()
    assert of(moved) not in (first, changed)
