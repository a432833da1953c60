"""Pascal VOC annotations as the original's image lists and as COCO JSON."""

import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.data.formats.voc_xml import read_annotation
from slimdet.errors import DataError
from slimdet.files import atomic_write

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
SPLITS = ("train", "val", "trainval")
Entry = dict[str, Any]


def convert(devkit: str | Path, out_dir: str | Path | None = None) -> list[Path]:
    """Write voc07_train.pkl, voc12_val.pkl, voc0712_trainval.pkl and so on, and the same as COCO JSON.

    Args:
        devkit: the folder that holds VOC2007, VOC2012 or both.
        out_dir: where to write; by default into `devkit`.

    Returns:
        The files written. A split whose list of images is missing is reported and left out.

    Raises:
        DataError: there is no VOC year, or an annotation is malformed.
    """
    devkit = Path(devkit)
    out = Path(out_dir) if out_dir is not None else devkit
    years = [year for year in ("2007", "2012") if (devkit / f"VOC{year}").is_dir()]
    if not years:
        raise DataError(f"{devkit} has neither VOC2007 nor VOC2012; give the VOCdevkit folder")
    groups = [(year,) for year in years] + ([tuple(years)] if len(years) == 2 else [])
    written = []
    for group in groups:
        prefix = "voc" + "".join(year[2:] for year in group)
        # The test lists belong to one year each.
        for split in (*SPLITS, "test") if len(group) == 1 else SPLITS:
            lists = [devkit / f"VOC{year}" / "ImageSets" / "Main" / f"{split}.txt" for year in group]
            missing = [str(path) for path in lists if not path.is_file()]
            if missing:
                print(f"{prefix}_{split} is left out: there is no {' and no '.join(missing)}")
                continue
            entries = [entry for year, path in zip(group, lists, strict=True) for entry in _entries(devkit, year, path)]
            written += _write(out / f"{prefix}_{split}.pkl", entries)
    return written


def _entries(devkit: Path, year: str, listed: Path) -> Iterator[Entry]:
    for line in listed.read_text().split("\n"):
        name = line.strip()
        if name:
            root = devkit / f"VOC{year}"
            yield read_xml(root / "Annotations" / f"{name}.xml", f"VOC{year}/JPEGImages/{name}.jpg")


def read_xml(path: Path, filename: str) -> Entry:
    """One annotation file as {filename, width, height, ann}: inclusive boxes from 0, labels 1..20, and the same of
    objects marked as difficult under bboxes_ignore and labels_ignore.

    Raises:
        DataError: not a VOC annotation, or an object of an unknown class.
    """
    read = read_annotation(path)
    if read.size is None:
        raise DataError(f"{path}: no size of the image")
    found: dict[bool, tuple[list[list[int]], list[int]]] = {False: ([], []), True: ([], [])}
    for item in read.objects:
        if item.name not in CLASSES:
            raise DataError(f"{path}: class {item.name!r} is not one of Pascal VOC's 20")
        boxes, labels = found[item.difficult]
        boxes.append([int(corner) - 1 for corner in item.corners])
        labels.append(CLASSES.index(item.name) + 1)
    ann = {}
    for difficult, suffix in ((False, ""), (True, "_ignore")):
        ann[f"bboxes{suffix}"] = np.array(found[difficult][0], np.float32).reshape(-1, 4)
        ann[f"labels{suffix}"] = np.array(found[difficult][1], np.int64)
    return {"filename": filename, "width": read.size[0], "height": read.size[1], "ann": ann}


def _write(path: Path, entries: Sequence[Entry]) -> list[Path]:
    with atomic_write(path) as temporary:
        temporary.write_bytes(pickle.dumps(list(entries), protocol=4))
    with atomic_write(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(as_coco(entries)))
    print(f"{len(entries)} images in {path} and {path.with_suffix('.json')}")
    return [path, path.with_suffix(".json")]


def as_coco(entries: Sequence[Entry]) -> dict[str, Any]:
    """Image lists as COCO annotations; difficult objects are crowds, which evaluation and training leave out."""
    images, annotations = [], []
    for number, entry in enumerate(entries, 1):
        size = {"height": entry["height"], "width": entry["width"]}
        images.append({"id": number, "file_name": entry["filename"], **size})
        for suffix, crowd in (("", 0), ("_ignore", 1)):
            boxes, labels = entry["ann"][f"bboxes{suffix}"].tolist(), entry["ann"][f"labels{suffix}"].tolist()
            for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
                box = [x1, y1, x2 - x1 + 1, y2 - y1 + 1]
                item = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "iscrowd": crowd}
                annotations.append({**item, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}
