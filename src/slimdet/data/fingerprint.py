"""By what a data set is known again."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def fingerprint(annotations: str | Path, images: str | Path, names: Iterable[str]) -> str:
    """sha256 of an annotation file and of its images' names and sizes in bytes; where the folders are does not matter.

    Args:
        annotations: the file.
        images: the folder.
        names: the images' file names in it, in the order of the annotations.
    """
    with Path(annotations).open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    for name in names:
        file = Path(images) / name
        size = file.stat().st_size if os.path.isfile(file) else None
        digest.update(f"\n{name} {size}".encode())
    return digest.hexdigest()
