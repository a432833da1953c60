"""Which images a job has, in which order, and in which blocks."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from slimdet.errors import ConfigError, DataError
from slimdet.runtime.prediction import find_images

COLUMN = "path"  # of a parquet list


@dataclass(frozen=True)
class Block:
    """The images of one part.

    Attributes:
        files: absolute paths.
        rounds: blocks that each worker has before it, this one included, if all are equally quick.
    """

    files: tuple[str, ...]
    rounds: int

    @property
    def part(self) -> str:
        """The name of its part file, the same wherever and whenever these images are a block."""
        return f"part-{sha256(chr(0).join(self.files).encode(errors='surrogateescape')).hexdigest()[:16]}.jsonl"


def listed(sources: Sequence[str]) -> list[str]:
    """Absolute paths of all images of files, folders, glob patterns and parquet lists, each once, in order.

    A parquet list has a column "path"; paths in it that are not absolute count from the list's folder. Whether there
    are such files is not looked up.

    Raises:
        ConfigError: there is a parquet list, and no pyarrow to read it with.
        DataError: a source without images, or a list without the column.
    """
    found: dict[str, None] = {}
    for source in sources:
        if source.lower().endswith(".parquet"):
            found |= dict.fromkeys(_paths(Path(source)))
        else:
            found |= dict.fromkeys(os.path.abspath(file) for file in find_images([source]))
    return list(found)


def blocks(files: Sequence[str], size: int, workers: int, done: Collection[str] = ()) -> list[Block]:
    """The images that are not done, in blocks.

    Parts are whole blocks: those that are not done are the same ones again when a job over the same images is resumed.
    """
    left = [file for file in files if file not in done]
    starts = range(0, len(left), size)
    return [
        Block(tuple(left[start : start + size]), -(-(len(starts) - number) // workers))
        for number, start in enumerate(starts)
    ]


def _paths(file: Path) -> list[str]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(f"{file}: parquet lists need pyarrow; get it with: pip install 'slimdet[ray]'") from None
    try:
        column = parquet.read_table(file, columns=[COLUMN]).column(COLUMN).to_pylist()
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{file}: not a parquet file with a column '{COLUMN}' ({' '.join(str(error).split())})"
        ) from None
    if not column or not all(isinstance(path, str) and path for path in column):
        raise DataError(f"{file}: its column '{COLUMN}' must hold paths of images, and at least one")
    return [os.path.abspath(file.parent / path) for path in column]
