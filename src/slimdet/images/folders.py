"""Which files of a folder are images."""

import os
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".jp2", ".avif"}
)
# Photographs that are not read, and what makes them files that are.
UNREAD = frozenset([".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw"])
UNREAD_HINT = "convert them to JPEG first, as with: heif-convert photo.heic photo.jpg"


def is_image_name(path: Path) -> bool:
    """Whether a file has an image's name; hidden ones (macOS leaves `._photo.jpg`) have not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def images_in(folder: Path) -> list[Path]:
    """All image files under a folder, sorted."""
    return sorted(path for path in files_in(folder) if is_image_name(path) and path.is_file())


def unread_in(folder: Path) -> list[Path]:
    """All files under a folder that are photographs of a kind that is not read, sorted."""
    return sorted(path for path in files_in(folder) if path.suffix.lower() in UNREAD)


def files_in(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files under a folder; folders that are links are gone through too, but for those that lead back `above`."""
    here = folder.resolve()
    if here in above:
        return
    with os.scandir(folder) as entries:
        found = [(Path(entry), entry.is_dir()) for entry in entries]
    for path, is_folder in found:
        if is_folder:
            yield from files_in(path, above | {here})
        else:
            yield path
