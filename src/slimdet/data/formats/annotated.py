"""What data sets of other formats are read into: images with COCO annotations, and what was met on the way."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimdet.data.annotations import Fault
from slimdet.errors import DataError
from slimdet.messages import printable

LEFT_OUT = "boxes or outlines without area inside their image are left out"
CUT = "boxes reach more than a pixel over the edge of their image and are cut there"
LARGEST_TEXT = 2**28  # bytes of a list of images; a million names


@dataclass(frozen=True)
class Split:
    """A folder of images and the COCO instances JSON that goes with it."""

    images: Path
    annotations: Path


@dataclass
class AnnotatedImage:
    """An image and its objects: COCO annotations without `id` and `image_id`."""

    path: Path
    width: int
    height: int
    objects: list[dict[str, Any]] = field(default_factory=list)


class Findings:
    """Faults, and what is left out or taken as something: all of it is collected, and said at the end.

    Attributes:
        faults: what nothing can be made of.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._counts: dict[str, tuple[int, str]] = {}

    def fault(self, kind: str, where: object, reason: str) -> None:
        """Put down what is wrong at `where`, a file or a file and line."""
        self.faults.append(Fault(kind, str(where), None, reason))

    def note(self, what: str, where: object) -> None:
        """Count one more `what`, a sentence after its number; the first place is kept."""
        count, first = self._counts.get(what, (0, str(where)))
        self._counts[what] = count + 1, first

    @property
    def notes(self) -> list[str]:
        """A line for each kind of thing that was counted: "3 images without ...: a.jpg and 2 more"."""
        lines = []
        for what, (count, first) in self._counts.items():
            more = f" and {count - 1} more" if count > 1 else ""
            lines.append(f"{count} {what}: {printable(first)}{more}")
        return lines


@dataclass
class AnnotatedSet:
    """Class names by category id (from 1), the images of each split ("train", "val"), and why it was read so."""

    classes: dict[int, str]
    splits: dict[str, list[AnnotatedImage]]
    why: str
    findings: Findings


def boxed(
    category_id: int, corners: tuple[float, float, float, float], width: int, height: int
) -> dict[str, Any] | None:
    """A COCO annotation of the box (x1, y1, x2, y2 in pixels), clipped to the image; None where nothing is inside.

    Raises:
        ValueError: the corners are the wrong way round.
    """
    if corners[2] < corners[0] or corners[3] < corners[1]:
        raise ValueError("a box without area: its corners are the wrong way round")
    left, top = max(0.0, corners[0]), max(0.0, corners[1])
    w, h = min(float(width), corners[2]) - left, min(float(height), corners[3]) - top
    # Three decimals are more than any annotation holds, and keep float noise out of the file.
    left, top, w, h = (round(value, 3) for value in (left, top, w, h))
    if not (w > 0 and h > 0):
        return None
    return {"category_id": category_id, "bbox": [left, top, w, h], "area": round(w * h, 3), "iscrowd": 0}


def reaches_out(corners: tuple[float, float, float, float], width: int, height: int) -> bool:
    """Whether a box (x1, y1, x2, y2 in pixels) reaches more than a pixel over its image's edge."""
    return min(corners[:2]) < -1 or corners[2] > width + 1 or corners[3] > height + 1


def lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers from 1.

    Raises:
        DataError: the file is no ordinary one, of more than 256 MB, not text, or not in UTF-8: other encodings cannot
            be told apart.
    """
    if not file.is_file():  # a pipe would be waited for
        raise DataError(f"{file}: is no ordinary file")
    if file.stat().st_size > LARGEST_TEXT:
        raise DataError(f"{file}: is too large to be a list or labels: {file.stat().st_size / 1e6:.0f} MB")
    try:
        content = file.read_bytes()
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not text in UTF-8; save it so, as with: iconv -f GB18030 -t UTF-8") from None
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def from_windows(name: str) -> str:
    """A path as this system writes it: backslashes that stand between folders become slashes."""
    return name.replace("\\", "/")


def visible(folder: Path) -> list[Path]:
    """The entries of a folder, sorted, without hidden ones: macOS leaves `._x.json` beside x.json."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def child(folder: Path, *names: str) -> Path | None:
    """The first entry of a folder that has one of these names, in capital letters or small ones."""
    entries = {entry.name.lower(): entry for entry in folder.iterdir()} if folder.is_dir() else {}
    return next((entries[name] for name in names if name in entries), None)


def without_prefix(name: str, starts: list[Path]) -> Iterator[Path]:
    """Where a file may be that another machine called `name`: under each start, with ever fewer of its folders."""
    parts = [part for part in from_windows(name).split("/") if part not in ("", ".")]
    if from_windows(name).startswith("/"):
        yield Path(name)
    for place in range(len(parts)):
        for start in starts:
            yield start.joinpath(*parts[place:])
