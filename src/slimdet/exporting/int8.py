"""Widths in 8 bits: made, held against the file in 32 bits, and kept where they are good enough.

Both files are measured as they ship: `Runtime` opens them, from a bundle of their own that nobody else sees.
"""

import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

from slimdet.bundle.ladder import Point, Precision
from slimdet.bundle.manifest import INT8, MODEL, Manifest
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.devices import cpu_name
from slimdet.errors import ConfigError, DataError
from slimdet.evaluation.matching import accumulate
from slimdet.evaluation.points import detect_points, part_of
from slimdet.exporting import quantization
from slimdet.exporting.settings import ExportSettings, Format
from slimdet.exporting.writing import Int8File, record, write, written
from slimdet.files import atomic_write
from slimdet.images.decoding import read_image
from slimdet.models.kinds import require
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import EngineName
from slimdet.runtime.latency import latencies

ENGINE: dict[Format, EngineName] = {"onnx": "onnxruntime", "openvino": "openvino"}
GROUPS = 8  # of layers, that go back to 32 bits one after the other; at most half of them do
RUNS = 30  # timed runs of each file


class TooInaccurateError(ConfigError):
    """A width that loses more than it may in 8 bits."""


@dataclass(frozen=True)
class Examples:
    """Images that say how good 8 bits are.

    Attributes:
        images: to calibrate on, each uint8 [1, H, W, 3].
        val, places: the data set that AP is measured on, and the places of the images in it that are taken.
    """

    images: quantization.Images
    val: CocoDataset
    places: Sequence[int]


def examples(source: Manifest, settings: ExportSettings) -> Examples:
    """Choose the images, the same ones for the same seed.

    Raises:
        ConfigError, DataError, ImageError: the data set cannot be read, or lacks `train:` or `val:`.
    """
    config = read_data_config(settings.data or "")
    if config.train is None or config.val is None:
        lacking = "train" if config.train is None else "val"
        raise DataError(f"{settings.data} has no '{lacking}:'; 8 bits are calibrated on train: and measured on val:")
    masks = require(source.architecture, "validate", source.name).masks
    train = CocoDataset(config.train.annotations, config.train.images)
    val = CocoDataset(config.val.annotations, config.val.images, masks=masks)
    for dataset, file in ((train, config.train.annotations), (val, config.val.annotations)):
        if not len(dataset):
            raise DataError(f"{file} has no images")
    images = [read_image(train.file(place))[None] for place in _some(len(train), settings.images, settings.seed)]
    places = _some(len(val), settings.val_images, settings.seed)
    if not len(part_of(val, places)["annotations"]):
        raise DataError(f"{config.val.annotations}: no objects in {len(places)} images; take more with --val-images")
    return Examples(images, val, places)


def add_int8(
    graph: onnx.ModelProto, source: Manifest, width: float, fp32: Path, settings: ExportSettings, data: Examples
) -> Int8File:
    """Write `width-W-int8.onnx` (or `.xml` and `.bin`) beside the file of a width in 32 bits.

    Where it loses more AP than it may, the layers that 8 bits disturb most go back to 32 bits, a group at a time.

    Args:
        graph: the width in 32 bits, folded.
        source: the bundle that it is of.
        width: which.
        fp32: the file in 32 bits, written.

    Raises:
        ConfigError: NNCF is not installed.
        TooInaccurateError: half of the layers do not suffice; nothing was written.
    """
    names = quantization.layers(graph)
    make = {"onnx": quantization.quantized_onnx, "openvino": quantization.quantized_openvino}[settings.format]
    with tempfile.TemporaryDirectory() as folder:
        trial = _Trial(Path(folder), source, fp32, settings.format, width)
        before = trial.ap("fp32", data)
        order: list[str] = []
        for count in range(0, len(names) // 2 + 1, -(-len(names) // GROUPS)):
            order = order or (quantization.worst_first(graph, data.images) if count else [])
            file = trial.add(make(graph, data.images, order[:count]))
            after = trial.ap("int8", data)
            drop, limit = _drop(before, after, settings.max_ap_drop)
            if drop <= limit:
                break
        else:
            raise TooInaccurateError(
                f"width {width} in 8 bits loses {100 * drop:.2f} AP, more than {100 * limit:.2f}, even with half of "
                "its layers in 32 bits; allow more with --max-ap-drop"
            )
        speedup = trial.speedup()
        for part in (file.with_suffix(".bin"), file):
            if part.exists():
                with atomic_write(fp32.parent / part.name) as temporary:
                    shutil.copy(part, temporary)
    return Int8File.of(
        written(fp32.parent / file.name, source.weights_sha256),
        AP=after,
        fp32_AP=before,
        val_images=len(data.places),
        speedup=round(speedup, 3),
        processor=cpu_name(),
        fp32_layers=order[:count],
    )


class _Trial:
    """A bundle of one width in a folder of its own: its file in 32 bits and, once it is added, one in 8."""

    def __init__(self, folder: Path, source: Manifest, fp32: Path, format: Format, width: float) -> None:
        self.folder, self.source, self.width = folder, source, width
        self.format: Format = format
        (folder / MODEL).write_text(json.dumps(source.document | {"engines": {}}))
        for part in (fp32, fp32.with_suffix(".bin"), source.weights_file):  # weights: of linked files
            if part.exists():
                shutil.copy(part, folder / part.name)
        self.fp32 = folder / fp32.name
        record(folder, format, {str(width): written(self.fp32, source.weights_sha256)})

    def add(self, model: Any) -> Path:
        """Write the model in 8 bits, in place of an earlier one."""
        file = self.fp32.with_stem(f"{self.fp32.stem}{INT8}")
        entry = write(model, file, self.source.weights_sha256)
        record(self.folder, self.format + INT8, {str(self.width): entry})
        return file

    def ap(self, precision: Precision, data: Examples) -> dict[str, float]:
        """AP of one of the files, by kind."""
        point = Point(self.width, precision=precision)
        found = detect_points(self._runtime(), data.val, [point], data.places)[point]
        kinds = ("bbox", "segm") if data.val.masks else ("bbox",)
        return {
            kind: one.summary()["AP"] for kind, one in accumulate(part_of(data.val, data.places), found, kinds).items()
        }

    def speedup(self) -> float:
        """How many times the file in 8 bits is faster, on one thread and an image of the model's size."""
        engine = self._runtime().engine
        names: tuple[Precision, ...] = ("fp32", "int8")
        sessions = {precision: engine.load(self.width, precision) for precision in names}
        side = sessions["fp32"].sides[0]
        noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        runs = latencies({name: lambda one=one: one(noise) for name, one in sessions.items()}, RUNS)
        return median(runs["fp32"]) / median(runs["int8"])

    def _runtime(self) -> Runtime:
        return Runtime(self.folder, self.width, ENGINE[self.format], device="cpu", threads=1)


def _some(total: int, count: int, seed: int) -> list[int]:
    return sorted(random.Random(seed).sample(range(total), min(count, total)))


def _drop(before: dict[str, float], after: dict[str, float], most: float | None) -> tuple[float, float]:
    """What the kind of AP that comes nearest to its limit (or farthest above) loses, and that limit, both in 0..1."""
    limits = {kind: min(0.005, 0.02 * ap) if most is None else most / 100 for kind, ap in before.items()}
    worst = max(before, key=lambda kind: before[kind] - after[kind] - limits[kind])
    return before[worst] - after[worst], limits[worst]
