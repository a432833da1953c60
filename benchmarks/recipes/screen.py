"""The screening of training recipes: short trainings on five small sets, one ingredient changed at a time.

    python benchmarks/recipes/screen.py --shared ../shared [--stage 1] [--limit N]
    python benchmarks/recipes/screen.py --table [--stage 1]

Stage 1 tries all recipes on two sets for 150 steps; stage 2 the best four of it on five sets; stage 3 the best two on
five sets for 300 steps (successive halving: the mean over sets of the place among the others decides,
at width 1.0 and in the mean over widths). A training leaves one line in rows.jsonl; what has a line is not run again,
and two processes may run at once. A step takes 2.6 CPU seconds here, which is why stage 1 is no larger.
"""

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import slimdet
from slimdet.data.coco import CocoDataset
from slimdet.evaluation.validation import validate
from slimdet.files import atomic_write
from slimdet.training.runs import train
from slimdet.training.settings import TrainSettings

ROWS = Path(__file__).parent / "rows.jsonl"
WORK = Path("runs/recipes")
SETS = ("pennfudan", "animalpose", "everyday", "nuclei", "coco_small")
WIDTHS = (0.25, 0.5, 0.75, 1.0)
VAL_IMAGES = 100
TENTH = 10  # of everyday, every tenth image

BASE: dict[str, Any] = {
    "backbone": "mobilenet_v2",
    "neck": "light",
    "head_norm": "batch",
    "sort": True,
    "distill": 2.0,
    "gradient_reduction": "root",
    "schedule": "cosine",
    "batch": 8,
    "imgsz": 128,
    "ema": 0.99,
    "warmup": 50,
    "evaluate": False,
    "check": False,
    "save_every": 1e9,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "adamw": {"optimizer": "adamw"},
    "adamw, sum": {"optimizer": "adamw", "gradient_reduction": "sum"},
    "adamw, untaught": {"optimizer": "adamw", "distill": 0.0},
    "adamw, mosaic": {"optimizer": "adamw", "augment": "mosaic"},
    "group": {"head_norm": "group"},
    "no-norm": {"head_norm": "none"},
    "unsorted": {"sort": False},
    "untaught": {"distill": 0.0},
    "sum": {"gradient_reduction": "sum"},
    "late": {"widest_only": 0.3},
    "no-average": {"ema": 0.0},
    "paper": {"head_norm": "none", "sort": False, "distill": 0.0, "gradient_reduction": "sum", "ema": 0.0},
}
RECIPES = (  # of stage 1: variant, peak learning rate for 8 images a step
    ("base", 0.02),
    ("adamw", 0.001),
    ("adamw", 0.002),
    ("adamw", 0.0005),
    ("adamw, sum", 0.001),
    ("adamw, untaught", 0.001),
    ("adamw, mosaic", 0.001),
    ("sum", 0.01),
    ("group", 0.02),
    ("base", 0.04),
    ("untaught", 0.02),
    ("sum", 0.02),
    ("late", 0.02),
    ("paper", 0.01),
    ("sum", 0.005),
    ("no-average", 0.02),
)
IMGSZ = {"nuclei": 192}  # objects of 10 pixels


@dataclass(frozen=True)
class Stage:
    """How many of the recipes before it, and how they are trained."""

    recipes: int
    steps: int
    seeds: tuple[int, ...]
    sets: tuple[str, ...] = SETS


STAGES = {
    1: Stage(len(RECIPES), 150, (0,), SETS[:2]),
    2: Stage(4, 150, (0,)),
    3: Stage(2, 300, (0,)),
}


@dataclass(frozen=True)
class Cell:
    """One training."""

    variant: str
    lr: float
    data: str
    steps: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.lr:g}-{self.data}-{self.steps}-{self.seed}"


def read_rows() -> dict[str, dict[str, Any]]:
    """The lines that are there, by name."""
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def stage(number: int, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Cell]:
    """The cells of a stage, set by set for each recipe, so that a stage cut short has whole recipes."""
    plan = STAGES[number]
    recipes = RECIPES if number == 1 else best(number - 1, rows)[: plan.recipes]
    for variant, lr in recipes:
        for seed in plan.seeds:
            yield from (Cell(variant, lr, data, plan.steps, seed) for data in plan.sets)


def best(number: int, rows: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, float]]:
    """The recipes of a stage that are whole, best first: by the mean over sets and both scores of their rank."""
    scores: dict[tuple[str, float], list[float]] = {}
    cells = list(stage(number, rows))
    for kind in ("widest", "mean"):
        for data in STAGES[number].sets:
            found = {}
            for cell in cells:
                if cell.data == data and cell.name in rows:
                    found.setdefault((cell.variant, cell.lr), []).append(score(rows[cell.name])[kind])
            order = sorted(found, key=lambda recipe: -mean(found[recipe]))
            for place, recipe in enumerate(order):
                scores.setdefault(recipe, []).append(place)
    whole = {recipe: places for recipe, places in scores.items() if len(places) == 2 * len(STAGES[number].sets)}
    return sorted(whole, key=lambda recipe: mean(whole[recipe]))


def score(row: Mapping[str, Any]) -> dict[str, float]:
    """AP at width 1.0 and in the mean over widths."""
    ap = {width: numbers["AP"] for width, numbers in row["widths"].items()}
    return {"widest": ap["1.0"], "mean": mean(ap.values())}


def table(number: int, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """What a stage has found, as a table: AP at width 1.0 and in the mean over widths, in percent; means of seeds."""
    sets = STAGES[number].sets
    found: dict[tuple[str, float], dict[str, list[dict[str, float]]]] = {}
    for cell in stage(number, rows):
        if cell.name in rows:
            found.setdefault((cell.variant, cell.lr), {}).setdefault(cell.data, []).append(score(rows[cell.name]))
    lines = [f"| recipe | rate | {' | '.join(sets)} |", "| --- | --- |" + " --- |" * len(sets)]
    for (variant, lr), of_sets in found.items():
        cells = []
        for data in sets:
            scores = of_sets.get(data, [])
            both = [100 * mean(one[kind] for one in scores) for kind in ("widest", "mean")] if scores else []
            cells.append(" / ".join(f"{ap:.1f}" for ap in both))
        lines.append(f"| {variant} | {lr:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def subset(shared: Path, data: str) -> Path:
    """The DATA.yaml of a set: everyday's tenth, and at most `VAL_IMAGES` for validation."""
    folder = WORK / "data" / data
    file = folder / "data.yaml"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    source = shared / "data" / data
    images = folder_of_images(shared, data)
    lines = []
    for part in ("train", "val"):
        coco = json.loads((source / "annotations" / f"instances_{part}.json").read_text())
        kept = sorted(coco["images"], key=lambda image: image["file_name"])
        if part == "train":
            kept = kept[::TENTH] if data == "everyday" else kept
        else:
            kept = kept[:: max(1, len(kept) // VAL_IMAGES)][:VAL_IMAGES]
        ids = {image["id"] for image in kept}
        coco |= {"images": kept, "annotations": [one for one in coco["annotations"] if one["image_id"] in ids]}
        (folder / f"{part}.json").write_text(json.dumps(coco))
        lines.append(f"{part}: {{images: {images}, annotations: {part}.json}}\n")
    with atomic_write(file) as temporary:
        temporary.write_text("".join(lines))
    return file


def folder_of_images(shared: Path, data: str) -> Path:
    """What the file names of a set start from; everyday's name other sets' folders too."""
    return (shared / "data" if data == "everyday" else shared / "data" / data / "images").resolve()


def run(cell: Cell, shared: Path) -> dict[str, Any]:
    """Train and measure a cell."""
    data = subset(shared, cell.data)
    images = len(json.loads((data.parent / "train.json").read_text())["images"])
    steps_per_epoch = -(-images // BASE["batch"])
    settings = TrainSettings(
        data=str(data),
        weights=str(shared / "data" / "weights" / "mobilenetv2_imagenet_features.pt"),
        widths=WIDTHS,
        lr=cell.lr,
        seed=cell.seed,
        epochs=cell.steps / steps_per_epoch,
        **BASE | VARIANTS[cell.variant] | {"imgsz": IMGSZ.get(cell.data, BASE["imgsz"])},
    )
    out = WORK / "training" / cell.name
    shutil.rmtree(out, ignore_errors=True)  # of an interrupted process
    began = time.process_time()
    found = train(settings, out=out)
    seconds = time.process_time() - began
    val = CocoDataset(data.parent / "val.json", folder_of_images(shared, cell.data))
    model = slimdet.load(found.model)
    numbers = validate(model, val, WIDTHS).widths
    shutil.rmtree(out)
    widths = {width: {key: round(kinds["bbox"][key], 5) for key in ("AP", "AP50")} for width, kinds in numbers.items()}
    return {"name": cell.name, **vars(cell), "widths": widths, "cpu_seconds": round(seconds), "machine": machine()}


def machine() -> str:
    """Processor and torch, for the row."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with data/ of the five sets and weights")
    parser.add_argument("--table", action="store_true", help="print what a stage has found")
    parser.add_argument("--stage", type=int, choices=STAGES, default=1)
    parser.add_argument("--limit", type=int, default=None, help="trainings to do at most")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.table or not given.shared:
        print(table(given.stage, read_rows()))
        return
    torch.set_num_threads(given.threads)
    done = 0
    for cell in stage(given.stage, read_rows()):
        claim = WORK / "claims" / cell.name
        claim.parent.mkdir(parents=True, exist_ok=True)
        if cell.name in read_rows() or (claim.exists() and _alive(claim)):
            continue
        if given.limit is not None and done >= given.limit:
            break
        claim.write_text(str(os.getpid()))
        try:
            row = run(cell, given.shared)
        except slimdet.SlimdetError as error:  # a recipe that diverges is a finding
            zero = {str(width): {"AP": 0.0, "AP50": 0.0} for width in WIDTHS}
            row = {"name": cell.name, **vars(cell), "widths": zero, "error": str(error), "machine": machine()}
        with ROWS.open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        done += 1


def _alive(claim: Path) -> bool:
    try:
        os.kill(int(claim.read_text() or 0), 0)
    except (OSError, ValueError):
        return False
    return True


if __name__ == "__main__":
    main()
