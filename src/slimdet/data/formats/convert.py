"""YOLO and VOC data sets as COCO: annotations are written anew, images stay where they are."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from slimdet.data.annotations import AnnotatedImage
from slimdet.data.formats.voc import is_voc, read_voc
from slimdet.data.formats.yolo import is_yolo, read_yolo
from slimdet.errors import DataError
from slimdet.files import atomic_write


def to_coco(dataset: str | Path, out: str | Path) -> dict[str, Path]:
    """Recognise a YOLO or VOC data set and write it as COCO instances.

    Args:
        dataset: the folder of the data set, or a YOLO data.yaml.
        out: gets `annotations/instances_{train,val}.json`, for the splits there are, and `data.yaml`, a DATA.yaml that
            points to the original images.

    Returns:
        The written files: "train" and "val" as far as there are such, and "data" (the DATA.yaml).

    Raises:
        DataError: not recognised, malformed (with file and line), or `out` holds such files already.
        ImageError: an image whose size cannot be read.
    """
    dataset, out = Path(dataset), Path(out)
    if not dataset.exists():
        raise DataError(f"{dataset}: no such data set")
    written = {name: out / "annotations" / f"instances_{name}.json" for name in ("train", "val")}
    written["data"] = out / "data.yaml"
    for path in written.values():
        if path.exists():
            raise DataError(f"{path} already exists; choose another folder or remove it")
    read = _reader(dataset)(dataset)
    categories = [{"id": number, "name": name} for number, name in sorted(read.classes.items())]
    config: dict[str, dict[str, str]] = {}
    for name, images in read.splits.items():
        folder = Path(os.path.commonpath([image.path.parent.absolute() for image in images]))
        with atomic_write(written[name]) as temporary:
            temporary.write_text(json.dumps(_coco(images, folder, categories)), encoding="utf-8")
        config[name] = {"images": _relative(folder, out), "annotations": _relative(written[name], out)}
    with atomic_write(written["data"]) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return {name: path for name, path in written.items() if name == "data" or name in read.splits}


def _reader(dataset: Path) -> Any:
    yolo, voc = is_yolo(dataset), is_voc(dataset)
    if yolo and voc:
        raise DataError(f"{dataset}: looks like both YOLO and VOC; give a YOLO data.yaml itself, or move one away")
    if yolo or voc:
        return read_yolo if yolo else read_voc
    if next(dataset.glob("annotations/*.json"), None) or next(dataset.glob("*.json"), None):
        raise DataError(f"{dataset}: has JSON annotations; if they are COCO instances, they can be used as they are")
    raise DataError(
        f"{dataset}: is no data set that is known: YOLO has a data.yaml with names, or images/ and labels/; "
        "VOC has Annotations/*.xml and JPEGImages/"
    )


def _coco(images: list[AnnotatedImage], folder: Path, categories: list[dict[str, Any]]) -> dict[str, Any]:
    coco: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    for image_id, image in enumerate(images, 1):
        name = image.path.absolute().relative_to(folder).as_posix()
        coco["images"].append({"id": image_id, "file_name": name, "width": image.width, "height": image.height})
        for annotation in image.objects:
            coco["annotations"].append({"id": len(coco["annotations"]) + 1, "image_id": image_id, **annotation})
    return coco


def _relative(path: Path, start: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()
