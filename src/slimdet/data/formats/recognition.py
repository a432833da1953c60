"""What a folder or file of data is: YOLO, Pascal VOC, or COCO as tools export it. One place says so, and why."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from slimdet.data.annotations import Fault
from slimdet.data.formats.annotated import AnnotatedSet, Findings, Split
from slimdet.data.formats.coco_folders import coco_files, cut_files, read_coco_folder
from slimdet.data.formats.convert import write_split
from slimdet.data.formats.voc import is_voc, read_voc
from slimdet.data.formats.yolo import is_yolo, read_yolo
from slimdet.data.formats.yolo_yaml import yaml_of
from slimdet.errors import DataError


@dataclass(frozen=True)
class Recognised:
    """A data set as it was found.

    Attributes:
        splits: "train" and "val", as far as there are such, as COCO.
        why: what it was taken for, by what, and the files that were read.
        notes: what was left out, or taken as something, each with its number.
        faults: what nothing can be made of.
    """

    splits: dict[str, Split]
    why: str
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_foreign(dataset: Path) -> AnnotatedSet:
    """Read a YOLO or VOC data set, whichever it is.

    Raises:
        DataError: it is neither, or may be both.
    """
    if not dataset.exists():
        raise DataError(f"{dataset}: no such data set")
    yolo, voc = is_yolo(dataset), is_voc(dataset)
    if yolo and voc:
        raise DataError(f"{dataset}: looks like both YOLO and VOC; give a YOLO data.yaml itself, or move one away")
    if yolo or voc:
        return read_yolo(dataset) if yolo else read_voc(dataset)
    if coco_files(dataset):
        raise DataError(f"{dataset}: is COCO already; give it to train, val and check as --data {dataset}")
    raise DataError(
        f"{dataset}: is no data set that is known: YOLO has a data.yaml with names, or images/ and labels/; "
        "VOC has Annotations/*.xml and JPEGImages/; COCO has a JSON file with images, annotations and categories"
    )


def recognise(dataset: Path) -> Recognised:
    """Find out what a folder is, or a YOLO data.yaml, and have it as COCO.

    COCO is used where it lies. Of others COCO files are written into the user's cache, anew each time; the images stay
    where they are.

    Raises:
        DataError: it is none of the kinds that are known, or what says where its parts are is malformed.
    """
    coco = dataset.is_dir() and bool(coco_files(dataset) or cut_files(dataset))
    foreign = is_yolo(dataset) or is_voc(dataset)
    if coco and foreign and not yaml_of(dataset):
        raise DataError(
            f"{dataset}: holds COCO's JSON files and labels of another kind; move one away, or write a DATA.yaml "
            "that names the JSON files"
        )
    if coco and not foreign:
        findings = Findings()
        splits = read_coco_folder(dataset, findings)
        read = ", ".join(f"{split.annotations} with images in {split.images}" for split in splits.values())
        why = f"COCO, by {read}" if read else "COCO, by the names of its files"
        return Recognised(splits, why, findings.notes, findings.faults)
    found = read_foreign(dataset)
    for file in coco_files(dataset) if coco else ():
        found.findings.note("COCO file is not read; the YAML file says that this is YOLO", file)
    splits = {
        name: write_split(images, found.classes, _cached(dataset, name))
        for name, images in found.splits.items()
        if images
    }
    return Recognised(splits, found.why, found.findings.notes, found.findings.faults)


def _cached(dataset: Path, split: str) -> Path:
    """Where a data set's annotations are kept as COCO, one file for each split."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    key = hashlib.sha256(str(dataset.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
    return home / "slimdet" / "annotations" / f"{dataset.stem or 'data'}-{key}" / f"{split}.json"
