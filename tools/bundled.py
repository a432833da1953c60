"""Rebuild the model that ships with slimdet: train, average, store in 16 bits, measure what is stored, write its card.

    python tools/bundled.py --data DATA.yaml --weights BACKBONE.pth [--run runs/bundled]

DATA.yaml names the Animal-Pose photographs as COCO (train and val); BACKBONE.pth is a ResNet-50 with half-width
bottlenecks (docs/detectors.md, resnet50_thin). Trainings that are finished in --run are not run again, an interrupted
one goes on.
"""

import argparse
import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from slimdet.assets import VAL
from slimdet.bundle import manifest, store
from slimdet.bundle.card import Card
from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.errors import ConfigError
from slimdet.evaluation.validation import validate
from slimdet.exporting.engine_files import export
from slimdet.files import atomic_write
from slimdet.report import profiling
from slimdet.training import runs
from slimdet.training.calibration import calibrate
from slimdet.training.safety.checkpoint import CHECKPOINT
from slimdet.training.statistics import calibration_batches, collect_statistics

# What 'slimdet train' is given, flag by flag; each stage goes on from the bundle of the one before.
RECIPE: dict[str, Any] = {
    "recipe": "paper",  # but for what follows
    "backbone": "resnet50_thin",
    "neck": "light",
    "head_norm": "batch",
    "width_sampling": "sandwich",
    "distill": 2.0,
    "batch": 16,
    "schedule": "cosine",
    "ema": 0.995,
    "imgsz": 186,
    "bf16": True,
    "evaluate": False,
    "save_every": 120.0,
    "seed": 0,
}
STAGES: tuple[dict[str, Any], ...] = (
    {"epochs": 6.0, "lr": 0.03, "sort": True},
    {"epochs": 1.75, "lr": 0.02, "loss_exponent": 0.5},
    {
        "epochs": 3.0,
        "lr": 0.006,
        "loss_exponent": 0.5,
        "width_sampling": "range",
    },  # any width, so that others can be calibrated
    {"epochs": 4.0, "lr": 0.012, "loss_exponent": 0.5, "width_sampling": "range", "gradient_reduction": "root"},
    {"epochs": 6.0, "lr": 0.016, "loss_exponent": 0.5, "width_sampling": "range", "gradient_reduction": "root"},
)
# Both go on from the last stage. What ships is the mean of the three ("Model soups", 2203.05482, uniform).
BRANCHES: tuple[dict[str, Any], ...] = (
    {"epochs": 3.5, "lr": 0.012, "loss_exponent": 0.75, "width_sampling": "range", "gradient_reduction": "root"},
    {"epochs": 3.5, "lr": 0.012, "loss_exponent": 0.5, "width_sampling": "range", "gradient_reduction": "root"},
)
STATISTICS = {"images": 512, "batch": 16, "seed": 0}  # of the training images, for the norms of the mean

CARD = """\
# The bundled detector: dogs, cats, sheep, horses and cows

Faster R-CNN on a thin ResNet-50 (`resnet50_thin`), light neck, scope "detector", widths {widths}. One file of
weights ({megabytes:.1f} MiB, in 16 bits), `weights.safetensors`, described by `model.json`; the `width-*.onnx` are the
same weights as graphs for ONNX Runtime and OpenVINO, which read that file.

**Research use.** Trained on the Animal-Pose data set (Cao et al., ICCV 2019: 3,874 photographs, many from PASCAL
VOC), for which no licence is stated; the backbone started from Yahoo's open_nsfw weights (ImageNet pre-training,
BSD-2-Clause). These weights are not covered by the licence of the code.

## Measured

Boxes, COCO's AP. "animalpose" is the 734 photographs held out from training, "assets" the {assets} redistributable
photographs in `src/slimdet/assets/val` (dogs, cats and horses only; too few to compare anything by). Multiply-adds at
{imgsz}x{imgsz} pixels.

| width | parameters | multiply-adds | AP | AP50 | AP75 | of the AP at 1.0 | AP on assets |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

It was trained with random widths: others can be calibrated. At 0.6, which no step of the training drew, `slimdet
calibrate --model bundled --data DATA.yaml --width 0.6` gives AP {calibrated:.3f}; the line between its neighbours is at
{line:.3f}.

## How it was made

    python tools/bundled.py --data DATA.yaml --weights BACKBONE.pth

is the same as
{commands}
with seed {seed}, and then the mean of the weights of stage-{last} and of both branches, with statistics of
{images} training images.

For the weights that ship, the first two stages, 1883 steps, took 99 minutes of two shared cores (AMD EPYC, bfloat16);
the third, 729 steps, 46 minutes of one core; the fourth, 972 steps, 83 minutes of one core (Intel Xeon); the fifth,
1458 steps, 81 minutes of one core (AMD EPYC); the branches, 850 steps each, 48 minutes each. From the third to the
fifth, each started from the weights of the one before rounded to 16 bits. Up to branch-1, random widths were drawn with
equal chances; later ones are drawn in inverse proportion to their cost, so that a training today draws otherwise.

## Limits

Five kinds of animal, photographs of {imgsz} pixels on the shorter side: small or far-away animals are missed, herds are
counted short, and other animals are taken for the nearest of the five. Scores are not calibrated.
"""


def trainings() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each training's name, that of the one that it goes on from ("" for the first), and its settings."""
    before = ""
    for number, stage in enumerate(STAGES, 1):
        name = f"stage-{number}"
        yield name, before, RECIPE | stage
        before = name
    for number, branch in enumerate(BRANCHES, 1):
        yield f"branch-{number}", before, RECIPE | branch


def trained(data: str, weights: str, run: Path) -> list[Path]:
    """Run the trainings that are not finished yet; return the bundles to take the mean of."""
    bundles = {"": Path(weights)}
    for name, before, settings in trainings():
        folder = run / name
        bundles[name] = folder / "model"
        if not (bundles[name] / store.MODEL).is_file():
            if (folder / CHECKPOINT).is_file():
                runs.resume(folder)
            else:
                runs.train(data=data, weights=bundles[before], out=folder, **settings)
    return list(bundles.values())[-1 - len(BRANCHES) :]


def mean(paths: Sequence[Path], dataset: CocoDataset) -> Slimmable:
    """The mean of the weights of several bundles; every width gets new statistics."""
    models = [store.load(path) for path in paths]
    model, states = models[0], [each.state_dict() for each in models]
    model.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
            for name, value in states[0].items()
        }
    )
    batches = calibration_batches(dataset, STATISTICS["images"], STATISTICS["batch"], STATISTICS["seed"])
    collect_statistics(model, model.widths, batches)
    return model


def measured(model: Slimmable, data: CocoDataset, classes: Sequence[str]) -> dict[str, Any]:
    return validate(model, data, model.widths, classes=classes).widths


def commands() -> str:
    """The trainings as command lines."""
    lines = []
    for name, before, settings in trainings():
        start = f"runs/bundled/{before}/model" if before else "BACKBONE.pth"
        options = {"data": "DATA.yaml", "weights": start, **settings, "out": f"runs/bundled/{name}"}
        flags = []
        for option, value in options.items():
            flag = option.replace("_", "-")
            if value is True:
                flags.append(f"--{flag}")
            elif value is False:
                flags.append(f"--no-{flag}")
            else:
                flags.append(f"--{flag} {value:g}" if isinstance(value, float) else f"--{flag} {value}")
        wrapped = textwrap.wrap(" ".join(["slimdet train", *flags]), 108, break_on_hyphens=False)
        lines += ["", "    " + " \\\n        ".join(wrapped)]
    return "\n".join([*lines, ""])


def card(document: dict[str, Any], calibrated: float) -> str:
    widest = document["metrics"]["1.0"]["bbox"]["AP"]
    rows = []
    for width, numbers in document["metrics"].items():
        cost, box = numbers["cost"], numbers["bbox"]
        rows.append(
            f"| {width} | {cost['parameters'] / 1e6:.2f} M | {cost['macs'] / 1e9:.2f} G | {box['AP']:.3f} "
            f"| {box['AP50']:.3f} | {box['AP75']:.3f} | {box['AP'] / widest:.0%} "
            f"| {numbers['assets']['bbox']['AP']:.3f} |"
        )
    return CARD.format(
        widths=", ".join(document["metrics"]),
        megabytes=document["weights"]["bytes"] / 2**20,
        assets=len(CocoDataset(VAL / "instances_val.json", VAL / "images")),
        imgsz=document["architecture"]["imgsz"][0],
        rows="\n".join(rows),
        calibrated=calibrated,
        line=0.6 * document["metrics"]["0.5"]["bbox"]["AP"] + 0.4 * document["metrics"]["0.75"]["bbox"]["AP"],
        commands=commands(),
        seed=RECIPE["seed"],
        last=len(STAGES),
        images=STATISTICS["images"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="DATA.yaml of Animal-Pose")
    parser.add_argument("--weights", required=True, help="the backbone's start")
    parser.add_argument("--run", type=Path, default=Path("runs/bundled"), help="folder of the training")
    options = parser.parse_args()
    config = read_data_config(options.data)
    train, split = config.train, config.val
    if train is None or split is None:
        raise ConfigError(f"{options.data} needs 'train:' and 'val:'")
    paths = trained(options.data, options.weights, options.run)
    trained_model = mean(paths, CocoDataset(train.annotations, train.images))
    last = manifest.read(paths[-1])
    settings = last.training | {"data": "animalpose", "weights": Path(options.weights).name}  # no paths of this machine
    about = Card(last.classes, last.category_ids, settings)
    shipped = store.save(trained_model, manifest.bundled(), about, half=True)
    model = store.load(shipped)  # measured is what ships: the weights rounded to 16 bits
    metrics = measured(model, CocoDataset(split.annotations, split.images), last.classes)
    for width, numbers in measured(
        model, CocoDataset(VAL / "instances_val.json", VAL / "images"), last.classes
    ).items():
        metrics[width]["assets"] = numbers
    for width, cost in profiling.profile(model, repeats=1).widths.items():
        metrics[width]["cost"] = {name: cost[name] for name in ("parameters", "macs")}
    calibrations = {str(width): STATISTICS for width in model.widths}
    store.save(model, shipped, about.record(store.weights_of(model), metrics, calibrations), half=True)
    export(shipped, linked=True)
    document = json.loads((shipped / store.MODEL).read_text())
    with TemporaryDirectory() as folder:
        calibrated = calibrate(shipped, options.data, 0.6, out=folder).metrics["bbox"]["AP"]
    with atomic_write(shipped / "README.md") as temporary:
        temporary.write_text(card(document, calibrated), encoding="utf-8")
    print(f"the bundled model is in {shipped}; look at its README.md and commit it")


if __name__ == "__main__":
    main()
