"""Which files of a folder are images."""

from pathlib import Path

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".avif"}
)


def is_image_name(path: Path) -> bool:
    """Whether a file has an image's name; hidden ones (macOS leaves `._photo.jpg`) have not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def images_in(folder: Path) -> list[Path]:
    """All image files under a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if is_image_name(path) and path.is_file())
