"""What is kept of a video: the clip with boxes, a line for each frame, and files for other tools.

frames.jsonl      a line for each frame, written as it comes: what is there is whole, whenever the process ends
video.mp4         the frames with boxes drawn, at the source's times
detections.json   COCO: frames as images, boxes with scores
tracks.txt        MOT challenge: frame, id, x, y, width, height, score, class, visibility
"""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from slimdet.files import atomic_write
from slimdet.streaming.sources import av
from slimdet.streaming.watching import Seen

LINES = "frames.jsonl"
CLIP = "video.mp4"
COCO = "detections.json"
MOT = "tracks.txt"
CLOCK = Fraction(1, 90_000)  # seconds of a tick: MPEG's, fine enough for any frame rate
CODECS = ("libx264", "mpeg4")


class Lines:
    """Appends what was seen to `frames.jsonl`, frame by frame."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / LINES
        self._handle = self.file.open("w")

    def write(self, seen: Seen, dropped: int) -> None:
        """Append a frame; `dropped`: of the source until now."""
        objects = seen.objects
        rows = zip(seen.names, objects.labels.tolist(), objects.scores, objects.boxes, seen.ids, strict=True)
        line = {
            "frame": seen.frame.number,
            "time_s": round(seen.frame.time_s, 6),
            "size": list(seen.frame.image.shape[1::-1]),
            "looked": seen.looked,
            "point": seen.point.entry,
            "took_ms": round(seen.took_ms, 3),
            "every": seen.every,
            "late": seen.late,
            "dropped": dropped,
            "objects": [
                {
                    "name": name,
                    "category_id": seen.category_ids[label - 1],
                    "score": round(float(score), 5),
                    "box": [round(float(value), 2) for value in box],
                    **({"id": id_} if id_ >= 0 else {}),
                }
                for name, label, score, box, id_ in rows
            ],
        }
        self._handle.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Write what is still held."""
        self._handle.close()


class Clip:
    """Writes pictures as H.264, each at its own time: variable rates stay, a part of the frames keeps its speed."""

    def __init__(self, file: Path, fps: float) -> None:
        """Take a new file, and the frames a second, roughly."""
        self._container = av().open(str(file), "w", format="mp4")
        codec = next(name for name in CODECS if name in av().codecs_available)
        self._stream: Any = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        self._stream.time_base = self._stream.codec_context.time_base = CLOCK
        self._size: tuple[int, int] | None = None
        self._last = -1

    def write(self, picture: Image.Image, time_s: float) -> None:
        """Append a picture, to be shown at `time_s`; one of another size than the first is fitted into that.

        Raises:
            OSError: the disk is full.
        """
        if self._size is None:
            self._size = (max(2, picture.width // 2 * 2), max(2, picture.height // 2 * 2))  # 4:2:0 wants even sides
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt = "yuv420p"
        if picture.size != self._size:
            picture = _of_size(picture, self._size)
        frame = av().VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
        self._last = max(self._last + 1, round(time_s / CLOCK))
        frame.pts, frame.time_base = self._last, CLOCK
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is still held."""
        if self._size is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def _of_size(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """One pixel more is cut off; anything else is fitted in, with black around it."""
    if all(0 <= given - wanted <= 1 for given, wanted in zip(picture.size, size, strict=True)):
        return picture.crop((0, 0, *size))
    return ImageOps.pad(picture, size)


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The frames of `frames.jsonl`; a last line that was cut off is left out."""
    with file.open() as handle:
        for line in handle:
            if line.endswith("\n"):
                yield json.loads(line)


def write_coco(lines: Path, categories: list[dict[str, Any]]) -> Path:
    """`detections.json` beside `frames.jsonl`, frame by frame: a long video needs no more memory than a short one."""
    path = lines.with_name(COCO)
    with atomic_write(path) as temporary, temporary.open("w") as handle:
        handle.write('{"images": [')
        for number, line in enumerate(read_lines(lines)):
            width, height = line["size"]
            image = {"id": line["frame"] + 1, "file_name": f"{line['frame']:06d}.jpg", "width": width, "height": height}
            handle.write((", " if number else "") + json.dumps(image))
        handle.write('], "annotations": [')
        for number, found in enumerate(_annotations(lines)):
            handle.write((", " if number else "") + json.dumps({"id": number + 1, **found}))
        handle.write(f'], "categories": {json.dumps(categories)}}}\n')
    return path


def write_mot(lines: Path) -> Path:
    """`tracks.txt` beside `frames.jsonl`: objects with an id, frames counted from 1."""
    path = lines.with_name(MOT)
    with atomic_write(path) as temporary, temporary.open("w") as handle:
        for found in _annotations(lines):
            if "track_id" in found:
                x, y, width, height = found["bbox"]
                numbers = (found["image_id"], found["track_id"], x, y, width, height, found["score"])
                handle.write(",".join(f"{number:g}" for number in (*numbers, found["category_id"], 1)) + "\n")
    return path


def _annotations(lines: Path) -> Iterator[dict[str, Any]]:
    for line in read_lines(lines):
        for found in line["objects"]:
            x1, y1, x2, y2 = found["box"]
            yield {
                "image_id": line["frame"] + 1,
                "category_id": found["category_id"],
                "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                "score": found["score"],
                **({"track_id": found["id"]} if "id" in found else {}),
            }
