"""What keeps the narrow widths accurate: one change at a time, trained for a while from the same detector.

    python benchmarks/everyday/narrow.py --shared ../shared --start BUNDLE [--steps 150] [--limit N] [--work DIR]
    python benchmarks/everyday/narrow.py --table

BUNDLE is a slimmable detector of everyday that is not fully trained. Every cell goes on from it with the same images in
the same order; the cells "from the backbone" start from the detector's pretrained backbone instead, for what comes
before detection. Measured are the widths at three image sizes on 400 photographs of val. A cell that has its line in
narrow.jsonl is not run again. Intervals are of the paired bootstrap over photographs, both seeds together.
"""

import argparse
import copy
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from backbones import cpu_medians
from torch import Tensor, nn

import slimdet
from slimdet.bundle import card, store
from slimdet.bundle.ladder import Point
from slimdet.core.sliced import Sliced
from slimdet.core.slimmable import Slimmable, slim
from slimdet.data.coco import CocoDataset
from slimdet.data.transforms import augmentation
from slimdet.evaluation.points import measure_points
from slimdet.images.decoding import read_image
from slimdet.training import step as training_step
from slimdet.training import trainer as trainer_module
from slimdet.training.distillation import Watched, distillation_losses, feature_loss
from slimdet.training.settings import TrainSettings
from slimdet.training.start import starting_model
from slimdet.training.trainer import Trainer
from slimdet.training.watching.callbacks import Callback, StepReport

sys.path.append(str(Path(__file__).parents[1] / "accuracy"))
from matches import difference, match, read, resampled, write

ROWS = Path(__file__).with_name("narrow.jsonl")
BACKBONE = "data/weights/efficientnet_lite0_imagenet_fp16.pth"
WIDTHS = (0.25, 0.5, 0.75, 1.0)
SIZES = (128, 160, 192)
PROPOSALS = 50
SEEDS = (0, 1)
RATIOS = (1.3, 2.2, 3.4, 6.0)
VAL_IMAGES = 400
BATCH = 16
BASE: dict[str, Any] = {
    "backbone": "efficientnet_lite0",
    "neck": "light",
    "head_norm": "batch",
    "widths": WIDTHS,
    "imgsz": (SIZES[0], SIZES[-1]),
    "distill": 2.0,
    "gradient_reduction": "root",
    "optimizer": "adamw",
    "lr": 0.0007,
    "warmup": 20,
    "schedule": "cosine",
    "batch": BATCH,
    "ema": 0.99,
    "evaluate": False,
    "check": False,
    "save_every": 1e9,
}


@dataclass(frozen=True)
class Cell:
    """A training: what it changes in the running best, and how much of the steps is spent before detection."""

    name: str
    changes: dict[str, Any]
    width: float | None = None  # of a detector trained alone
    scratch: bool = False  # from the backbone
    before: str = ""  # whose features are learned first: "narrow", or "all" widths'
    next_wider: bool = False
    narrow_last: bool = False
    triangular: bool = False


CELLS = (
    Cell("running best", {}),
    Cell("one image size", {"imgsz": SIZES[-1]}),
    Cell("untaught", {"distill": 0.0}),
    Cell("the next wider teaches", {}, next_wider=True),
    Cell("narrow-heavy last", {}, narrow_last=True),
    Cell("no mean of weights", {"ema": 0.0}),
    Cell("block-triangular", {}, triangular=True),
    *(Cell(f"alone {width}", {"distill": 0.0}, width=width) for width in WIDTHS),
    Cell("from the backbone", {}, scratch=True),
    Cell("from the backbone, narrow features first", {}, scratch=True, before="narrow"),
    Cell("from the backbone, all widths' features first", {}, scratch=True, before="all"),
)
SHARE_BEFORE = 0.25  # of the CPU time of the steps, for features


# ------------------------------------------------------------------------------------------------- the cells' parts


@contextmanager
def next_wider_teaches() -> Iterator[None]:
    """Each width learns from the one before it in the step, not from the widest (SlimSeg, arXiv 2207.06242)."""
    lesson: dict[str, Watched] = {}

    def losses(twin: nn.Module, student: Watched, teacher: Watched, parts: Sequence[str]) -> dict[str, Tensor]:
        if lesson.get("widest") is not teacher:  # a new step
            lesson.update(widest=teacher, next=teacher)
        found = distillation_losses(twin, student, lesson["next"], parts)
        lesson["next"] = student.detached()
        return found

    usual, training_step.distillation_losses = training_step.distillation_losses, losses
    try:
        yield
    finally:
        training_step.distillation_losses = usual


@contextmanager
def alone(width: float) -> Iterator[None]:
    """One width in every step: a detector of its own, in the corner of the whole one's weights."""
    usual, trainer_module.sampled_widths = trainer_module.sampled_widths, lambda *args: [width]
    try:
        yield
    finally:
        trainer_module.sampled_widths = usual


class NarrowLast(Callback):
    """From two thirds of the steps on, the losses of narrow widths count more."""

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        if trainer.step == 2 * trainer.total // 3:
            trainer.settings = replace(trainer.settings, loss_exponent=0.75)


class Triangular(Callback):
    """Narrow channels never read wide ones: after each step those weights are zero again."""

    def __init__(self, model: Slimmable) -> None:
        self.masks: list[tuple[nn.Parameter, Tensor]] = []
        twins = [dict(model.twin(width).named_modules()) for width in WIDTHS[:-1]]
        for name, layer in model.twin(1.0).named_modules():
            layers = [twin[name] for twin in twins]
            dense = isinstance(layer, nn.Conv2d | nn.Linear) and getattr(layer, "groups", 1) == 1
            if dense and all(isinstance(one, Sliced) for one in layers):
                self._add(layer, layers)
        self.apply()

    def _add(self, layer: Any, layers: Sequence[Any]) -> None:
        weight = layer.weight
        shapes = [tuple(one.weight.shape[:2]) for one in layers] + [tuple(weight.shape[:2])]
        if shapes[0][0] == shapes[-1][0]:  # predictors: every width has all of their outputs
            return
        mask = torch.zeros_like(weight)
        before = 0
        for outputs, inputs in shapes:
            mask[before:outputs, :inputs] = 1
            before = outputs
        self.masks.append((weight, mask))

    @torch.no_grad()
    def apply(self) -> None:
        for weight, mask in self.masks:
            weight.mul_(mask)

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        self.apply()


def features_first(model: Slimmable, widths: Sequence[float], folders: Sequence[Path], seconds: float) -> int:
    """Teach the backbone of some widths the pretrained one's features, on images without boxes; the number of steps."""
    teacher = copy.deepcopy(model.get_submodule("backbone.body")).eval()
    files = sorted(file for folder in folders for file in folder.rglob("*.jpg"))
    draw = random.Random(0)
    parameters = [one for one in model.get_submodule("backbone").parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0007)
    transform: Any = model.twin(1.0).get_submodule("transform")
    end, steps = time.process_time() + seconds, 0
    while time.process_time() < end:
        images = [read_image(draw.choice(files)) for _ in range(BATCH)]
        batch = transform([torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 for image in images])[0]
        with torch.no_grad():
            wanted = teacher(batch.tensors)
        for width in widths:
            body: Any = model.twin(width).get_submodule("backbone.body")
            found = body(batch.tensors)
            torch.stack(
                [feature_loss(found[level], wanted[level], batch.image_sizes) for level in found]
            ).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return steps


# ------------------------------------------------------------------------------------------------- a cell


def data_sets(shared: Path, work: Path) -> tuple[CocoDataset, CocoDataset]:
    """The training photographs and some of val's."""
    data = (shared / "data").resolve()
    coco = json.loads((data / "everyday/annotations/instances_val.json").read_text(encoding="utf-8"))
    kept = sorted(coco["images"], key=lambda image: image["file_name"])
    kept = kept[:: len(kept) // VAL_IMAGES][:VAL_IMAGES]
    ids = {image["id"] for image in kept}
    coco |= {"images": kept, "annotations": [one for one in coco["annotations"] if one["image_id"] in ids]}
    work.mkdir(parents=True, exist_ok=True)
    (work / "val.json").write_text(json.dumps(coco), encoding="utf-8")
    train = CocoDataset(data / "everyday/annotations/instances_train.json", data, augmentation("default"), train=True)
    return train, CocoDataset(work / "val.json", data)


def start(cell: Cell, settings: TrainSettings, bundle: Path, shared: Path, classes: Sequence[str]) -> Slimmable:
    torch.manual_seed(settings.seed)
    weights = str(shared / BACKBONE) if cell.scratch else str(bundle)
    model = starting_model(replace(settings, widths=WIDTHS, weights=weights, sort=False), classes)
    if cell.triangular:
        return slim(model.extract(1.0), WIDTHS, norm_sharing="shared")
    return model


def run(cell: Cell, seed: int, steps: int, bundle: Path, shared: Path, work: Path) -> dict[str, Any]:
    """Train and measure a cell; its row."""
    train, val = data_sets(shared, work)
    fields = BASE | cell.changes | {"seed": seed, "epochs": steps * BATCH / len(train)}
    settings = TrainSettings(data="everyday", weights="none", **fields)
    began = time.process_time()
    model = start(cell, settings, bundle, shared, train.classes)
    first = 0
    if cell.before:
        seconds = SHARE_BEFORE * rows()[f"from the backbone {seed}"]["cpu_seconds"]
        widths = WIDTHS[::-1] if cell.before == "all" else WIDTHS[-2::-1]
        folders = [shared / "data" / name / "images" for name in ("everyday", "animalpose", "coco_small")]
        first = features_first(model, widths, folders, seconds)
        settings = replace(settings, epochs=settings.epochs * (1 - SHARE_BEFORE))
    callbacks: list[Callback] = [NarrowLast()] if cell.narrow_last else []
    if cell.triangular:
        callbacks.append(Triangular(model))
    trainer = Trainer(model, train, settings)
    folder = work / f"{cell.name} {seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with alone(cell.width) if cell.width else next_wider_teaches() if cell.next_wider else nullcontext():
        trainer.run(folder, callbacks)
    spent = time.process_time() - began
    result = copy.deepcopy(trainer.result).eval()
    store.save(result, folder / "model", card.Card(val.classes, tuple(one["id"] for one in val.coco["categories"])))
    runtime = slimdet.Runtime(folder / "model", engine="torch", threads=1)
    widths = [cell.width] if cell.width else runtime.widths
    points = [Point(width, size, PROPOSALS) for width in widths for size in SIZES]
    found, matches = {}, {}
    for measured in measure_points(runtime, val, [runtime.complete(point) for point in points]):
        name = f"{measured.width} {measured.point.imgsz}"
        found[name] = {key: round(measured.numbers["bbox"][key], 4) for key in ("AP", "AP50")}
        matches[name] = match(val.coco, list(measured.detections))
    write(work / f"{cell.name} {seed}.npz.xz", matches)
    return {
        "name": f"{cell.name} {seed}",
        "steps": trainer.step,
        "steps before": first,
        "cpu_seconds": round(spent),
        "points": found,
    }


def rows() -> dict[str, dict[str, Any]]:
    """The lines that are there, by name."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def latencies(bundle: Path, work: Path, repeats: int = 25) -> dict[str, float]:
    """Median CPU milliseconds of the points in ONNX Runtime, one thread."""
    copied = work / "timed"
    if not copied.exists():
        shutil.copytree(bundle, copied)
        slimdet.export(copied)
    runtime = slimdet.Runtime(copied, engine="onnxruntime", threads=1)
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    calls: dict[str, Callable[[], Any]] = {
        f"{width} {size}": partial(runtime, image, width=width, imgsz=size, proposals=PROPOSALS)
        for width in WIDTHS
        for size in SIZES
    }
    return cpu_medians(calls, repeats)


# ------------------------------------------------------------------------------------------------- the table


def table(work: Path) -> str:
    """AP of each width at the largest size, the difference from the running best, and what is kept of the AP."""
    found = rows()
    ms = found["latencies"]["cpu_ms"]
    full = f"1.0 {SIZES[-1]}"
    heads = [*(f"{width}" for width in WIDTHS), "mean, against", *(f"kept at {ratio}" for ratio in RATIOS)]
    lines = [f"| cell | {' | '.join(heads)} | CPU s a step |", "| --- |" + " --- |" * (len(heads) + 1)]
    for cell in CELLS:
        own = [found[f"{cell.name} {seed}"] for seed in SEEDS if f"{cell.name} {seed}" in found]
        if not own or cell.width is not None:
            continue
        ap = {point: mean(row["points"][point]["AP"] for row in own) for point in own[0]["points"]}
        best = "from the backbone" if cell.scratch else "running best"
        gain = against(work, cell.name, best, len(own))
        text = "" if cell.name == best else f"{gain['difference']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})"
        kept = [
            max([ap[p] for p in ap if ms[p] * ratio <= ms[full]], default=0) / max(ap[full], 1e-9) for ratio in RATIOS
        ]
        cells = [*(f"{100 * ap[f'{width} {SIZES[-1]}']:.1f}" for width in WIDTHS), text, *(f"{k:.0%}" for k in kept)]
        seconds = mean(row["cpu_seconds"] / row["steps"] for row in own)
        lines.append(f"| {cell.name} | {' | '.join(cells)} | {seconds:.1f} |")
    return "\n".join(lines)


def against(work: Path, name: str, best: str, seeds: int) -> dict[str, float]:
    """The difference of the mean AP over widths at the largest size, in points, with its interval."""
    draws = {}
    for one in (name, best):
        files = [read(work / f"{one} {seed}.npz.xz") for seed in SEEDS[:seeds]]
        draws[one] = [resampled(file[f"{width} {SIZES[-1]}"], 300) for file in files for width in WIDTHS]
    return {key: 100 * value for key, value in difference(draws[name], draws[best]).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--start", type=Path, help="a bundle")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--limit", type=int, default=10**9, help="of cells in this call")
    parser.add_argument("--work", type=Path, default=Path("runs/narrow"))
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table(given.work))
        return
    if "latencies" not in rows():
        _append({"name": "latencies", "cpu_ms": latencies(given.start, given.work)})
    for seed in SEEDS:
        for cell in CELLS:
            if f"{cell.name} {seed}" not in rows() and given.limit > 0:
                _append(run(cell, seed, given.steps, given.start, given.shared, given.work))
                given.limit -= 1


def _append(row: dict[str, Any]) -> None:
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
