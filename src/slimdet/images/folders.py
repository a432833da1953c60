"""Which files of a folder are images."""

import os
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    | {".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif"}
)
# Pictures that are not read, and what makes them files that are.
UNREAD = frozenset(
    {".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".rw2", ".orf", ".raf"}
    | {".tga", ".psd", ".exr", ".hdr", ".svg"}
)
UNREAD_HINT = "convert them to JPEG or PNG first; HEIC as with: heif-convert photo.heic photo.jpg"


def is_image_name(path: Path) -> bool:
    """Whether a file has an image's name; hidden ones (macOS leaves `._photo.jpg`) have not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def images_in(folder: Path) -> list[Path]:
    """All image files under a folder, sorted; links that lead to nothing too, so that reading them tells."""
    return sorted(path for path in files_in(folder) if is_image_name(path) and _is_file_or_lost(path))


def _is_file_or_lost(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


def unread_in(folder: Path) -> list[Path]:
    """All files under a folder that are photographs of a kind that is not read, sorted."""
    return sorted(path for path in files_in(folder) if path.suffix.lower() in UNREAD)


def files_in(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files under a folder, but for hidden ones and those in hidden folders (names that begin with a dot).

    Folders that are links are gone through too, except those that lead back `above`.
    """
    here = folder.resolve()
    if here in above:
        return
    with os.scandir(folder) as entries:
        found = [(Path(entry), _is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
    for path, is_folder in found:
        if is_folder:
            yield from files_in(path, above | {here})
        else:
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return Path(entry).is_dir() if entry.is_symlink() else entry.is_dir()  # an entry raises for a link to itself
