"""Data sets of other formats written as COCO: annotations anew, images stay where they are."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from slimdet.data.formats.annotated import AnnotatedImage, AnnotatedSet, Split
from slimdet.errors import DataError
from slimdet.files import atomic_write


def to_coco(found: AnnotatedSet, out: str | Path) -> dict[str, Path]:
    """Write a data set as COCO instances.

    Args:
        found: as `slimdet.data.formats.recognition.read_foreign` gives it.
        out: gets `annotations/instances_{train,val}.json`, for the splits there are, and `data.yaml`, a DATA.yaml that
            points to the original images.

    Returns:
        The written files: "train" and "val" as far as there are such, and "data" (the DATA.yaml).

    Raises:
        DataError: the data set has faults, or `out` holds such files already.
    """
    out = Path(out)
    written = {name: out / "annotations" / f"instances_{name}.json" for name in ("train", "val")}
    written["data"] = out / "data.yaml"
    for path in written.values():
        if path.exists():
            raise DataError(f"{path} already exists; choose another folder or remove it")
    if faults := found.findings.faults:
        more = f" (and {len(faults) - 1} more faults; 'slimdet check' lists them all)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0].file}: {faults[0].reason}{more}")
    config: dict[str, dict[str, str]] = {}
    for name, images in found.splits.items():
        split = write_split(images, found.classes, written[name])
        config[name] = {"images": _relative(split.images, out), "annotations": _relative(written[name], out)}
    with atomic_write(written["data"]) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return {name: path for name, path in written.items() if name == "data" or name in found.splits}


def write_split(images: list[AnnotatedImage], classes: Mapping[int, str], file: Path) -> Split:
    """Write the annotations of some images as COCO instances; they start from the folder that all images are in."""
    folder = Path(os.path.commonpath([image.path.parent.absolute() for image in images]))
    categories = [{"id": number, "name": name} for number, name in sorted(classes.items())]
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(_coco(images, folder, categories)), encoding="utf-8")
    return Split(folder, file)


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
