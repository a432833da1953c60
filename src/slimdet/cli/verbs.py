"""One function per verb, no logic. `slimdet.cli.command` turns each into flags, help and exit codes."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from slimdet.cli.command import Outcome, run
from slimdet.cli.flags import (
    Count,
    Device,
    Existing,
    Fraction,
    Model,
    Natural,
    NonNegative,
    Parts,
    Positive,
    Source,
    Start,
    Width,
    WidthOrAll,
    Widths,
)

Engine = Literal["auto", "onnxruntime", "openvino", "torch"]


def demo(
    *,
    engine: Annotated[Engine, "what runs it; auto is onnxruntime where the model was exported, else torch"] = "auto",
    device: Annotated[Device, "auto, cpu, cuda, cuda:N or mps, as far as the engine has it"] = "auto",
    threads: Annotated[Count | None, "threads of one run (default: the engine's choice)"] = None,
    out: Annotated[Path | None, "folder (default runs/demo)"] = None,
) -> Outcome:
    """The bundled model on the bundled photographs, at every width.

    Example:
        slimdet demo
    """
    from slimdet.cli import demo

    result = demo.demo(out, engine, device, threads)
    document = {"run": str(result.run), "widths": result.widths, "found": result.found}
    return Outcome(document, demo.view(result))


def train(
    *,
    data: Annotated[Existing | None, "DATA.yaml with train: and val: (not with --resume)"] = None,
    model: Annotated[Literal["faster_rcnn", "mask_rcnn"], "detector"] = "faster_rcnn",
    backbone: Annotated[str, "resnet18/34/50/101/152, resnet50_thin, mobilenet_v2 or efficientnet_lite0"] = "resnet50",
    neck: Annotated[Literal["full", "light"], "feature pyramid; a CPU can train the light one"] = "full",
    norm: Annotated[Literal["none", "batch", "group"], "norms in pyramid and heads"] = "none",
    frozen_norms: Annotated[bool, "keep the backbone's norms as they were"] = False,
    weights: Annotated[Start, "start: imagenet, none, a FILE with a backbone, or a BUNDLE to fine-tune"] = "imagenet",
    widths: Annotated[Widths, "widths to train, 1.0 among them, or a range, 0.25-1.0"] = (0.25, 0.5, 0.75, 1.0),
    scope: Annotated[Literal["detector", "backbone"], "what narrows"] = "detector",
    sampling: Annotated[
        Literal["all", "sandwich", "range"],
        "widths in a step: all; narrowest, widest, one between; narrowest, widest, any two between, mostly narrow",
    ] = "all",
    distill: Annotated[NonNegative, "weight of what the widest teaches the others; 0 is the paper"] = 0.0,
    distill_parts: Annotated[Parts, "what is taught: features, classes, rpn, masks"] = ("features", "classes"),
    balance: Annotated[NonNegative, "losses of width w count w ** -BALANCE: 0.5 favours the narrow ones"] = 0.0,
    gradients: Annotated[
        Literal["sum", "root", "mean"],
        "of the n widths that share a weight: their sum as in the paper, the sum / sqrt(n), or the sum / n",
    ] = "sum",
    narrow_start: Annotated[Fraction, "part of the training after which the narrower widths join the widest"] = 0.0,
    sort: Annotated[bool, "sort channels by importance before slimming: the backbone's, all of a BUNDLE"] = False,
    recalibrate: Annotated[
        Natural | None, "images whose statistics the norms get at the end (default: 512 for a range of widths, else 0)"
    ] = None,
    epochs: Annotated[Positive, "passes over the training images"] = 12.0,
    batch: Annotated[Count, "images in a step"] = 16,
    lr: Annotated[Positive | None, "peak learning rate (default 0.02 for a batch of 16, scaled to --batch)"] = None,
    schedule: Annotated[Literal["step", "cosine"], "x 0.1 at 2/3 and 11/12, or a cosine to zero"] = "step",
    warmup: Annotated[Natural, "steps of linear warm-up"] = 500,
    weight_decay: Annotated[NonNegative, "L2 penalty"] = 1e-4,
    clip: Annotated[Positive, "largest norm of the gradient"] = 35.0,
    ema: Annotated[Fraction, "decay of the average of the weights, as 0.998; 0 is off"] = 0.0,
    augment: Annotated[Literal["none", "default", "strong"], "flip; strong: scale, colour, crop too"] = "default",
    imgsz: Annotated[Count | None, "shorter side of images in pixels (default: the neck's)"] = None,
    bf16: Annotated[bool, "compute in bfloat16"] = False,
    device: Annotated[Device, "auto, cpu, cuda, cuda:N or mps"] = "auto",
    seed: Annotated[Natural, "of everything drawn at random"] = 0,
    workers: Annotated[Natural, "processes that read images"] = 0,
    save_every: Annotated[Positive, "seconds between checkpoints"] = 300.0,
    evaluate: Annotated[bool, "measure every width on val: at the end"] = True,
    out: Annotated[Path | None, "folder (default runs/train-N)"] = None,
    resume: Annotated[Existing | None, "folder of an interrupted run to go on with, by its settings"] = None,
) -> Outcome:
    """Train one set of weights for many widths.

    Example:
        slimdet train --data data.yaml --model mask_rcnn --backbone mobilenet_v2 --neck light --weights mobilenet.pth
    """
    flags = dict(locals())
    from slimdet.training import trainer

    result = trainer.resume(resume) if resume else trainer.train(trainer.settings_from(flags), out)
    return Outcome(result, trainer.view(result))


def calibrate(
    *,
    model: Annotated[Model, "bundle that gets the width: a folder, or 'bundled'"],
    data: Annotated[Existing, "DATA.yaml: statistics of its train: images, accuracy on its val:"],
    width: Annotated[Width, "the width; with --plan, the plan's name"],
    plan: Annotated[Existing | None, 'JSON file of widths by stage: {"backbone.body.layer4": 0.5}'] = None,
    images: Annotated[Count, "training images to collect from"] = 512,
    batch: Annotated[Count, "images that are normalised together"] = 16,
    device: Annotated[Device, "auto, cpu, cuda, cuda:N or mps"] = "auto",
    seed: Annotated[Natural, "of the choice of images"] = 0,
    out: Annotated[Path | None, "new folder for the bundle (default: in place; 'bundled': runs/calibrate-N)"] = None,
) -> Outcome:
    """Give a model a width that it was not trained at: statistics for its norms, and its accuracy.

    Example:
        slimdet calibrate --model runs/train-1/model --data data.yaml --width 0.6
    """
    from slimdet.training import calibration

    result = calibration.calibrate(model, data, width, plan, images, batch, device, seed, out)
    return Outcome(asdict(result), calibration.view(result))


def val(
    *,
    model: Annotated[Model, "bundle: a folder, or 'bundled'"],
    data: Annotated[Existing, "COCO instances JSON, or DATA.yaml, whose val: is taken"],
    images: Annotated[Existing | None, "folder of the images (not with DATA.yaml)"] = None,
    width: Annotated[WidthOrAll, "one width, or all"] = None,
    imgsz: Annotated[Count | None, "shorter side in pixels (default: the model's)"] = None,
    device: Annotated[Device, "auto, cpu, cuda, cuda:N or mps"] = "auto",
    workers: Annotated[Natural, "processes that read images"] = 0,
    out: Annotated[Path | None, "folder (default runs/val-N)"] = None,
) -> Outcome:
    """The 12 COCO numbers of every width, with tables and pictures by class.

    Example:
        slimdet val --model bundled --data annotations/instances_val.json --images images --width all
    """
    from slimdet.evaluation import validation

    result = validation.validate_bundle(model, data, images, width, imgsz, device, out, workers)
    return Outcome({"run": str(result.run), "widths": result.widths}, validation.view(result))


def predict(
    *sources: Annotated[Source, "images, folders or glob patterns"],
    model: Annotated[Model, "bundle: a folder, or 'bundled'"],
    width: Annotated[Width, "how wide to run"] = 1.0,
    conf: Annotated[Fraction, "least score of a detection"] = 0.25,
    engine: Annotated[Engine, "what runs it; auto is onnxruntime where the model was exported, else torch"] = "auto",
    imgsz: Annotated[Count | None, "shorter side in pixels, with --engine torch (default: the model's)"] = None,
    device: Annotated[Device, "auto, cpu, cuda, cuda:N or mps, as far as the engine has it"] = "auto",
    threads: Annotated[Count | None, "threads of one run (default: the engine's choice)"] = None,
    batch: Annotated[Count, "images that are read at a time; those of one size run together"] = 8,
    out: Annotated[Path | None, "folder (default runs/predict-N)"] = None,
) -> Outcome:
    """Detect objects in images: drawn pictures and COCO JSON.

    Example:
        slimdet predict photo.jpg holiday/ --model bundled --width 0.5
    """
    from slimdet.runtime import prediction

    found = prediction.predict(sources, model, width, conf, imgsz, device, out, engine, threads, batch)
    seen, broken = len(found.coco["images"]), len(found.broken)
    text = f"{seen} images, {len(found.coco['annotations'])} detections; pictures and detections.json in {found.run}"
    mistake = f"{broken} of {seen + broken} files could not be read, see above" if broken else ""
    return Outcome({"run": str(found.run), **found.coco, "broken": found.broken}, text, mistake)


def profile(
    *,
    model: Annotated[Model, "bundle to measure: a folder, or 'bundled'"],
    engine: Annotated[Engine, "what runs it; auto is onnxruntime where the model was exported, else torch"] = "auto",
    imgsz: Annotated[Count | None, "side of the picture, pixels, with --engine torch (default: the model's)"] = None,
    device: Annotated[Device, "auto, cpu, cuda, cuda:N or mps, as far as the engine has it"] = "auto",
    threads: Annotated[Count | None, "threads of one run (default: the engine's choice)"] = None,
    repeats: Annotated[Count, "timed runs of every width"] = 10,
) -> Outcome:
    """Latency, memory, disk, and with torch multiply-adds, of every width.

    Example:
        slimdet profile --model bundled --engine onnxruntime
    """
    from slimdet.report import costs

    found = costs.costs(model, engine, imgsz, device, threads, repeats)
    return Outcome(found, costs.view(found))


def extract(
    *,
    model: Annotated[Model, "bundle to take it from: a folder, or 'bundled'"],
    width: Annotated[Width, "one of the bundle's widths"],
    out: Annotated[Path | None, "folder to write, new or empty (default: runs/extract-N)"] = None,
) -> Outcome:
    """One width as a plain torchvision detector that needs no slimdet.

    Example:
        slimdet extract --model bundled --width 0.5 --out half
    """
    from slimdet.bundle import extraction

    written = extraction.extract(model, width, out)
    return Outcome(written, extraction.usage(written))


def export(
    *,
    model: Annotated[Model, "bundle to take it from: a folder, or 'bundled'"],
    width: Annotated[WidthOrAll, "one width, or all"] = None,
    format: Annotated[Literal["onnx", "openvino"], "kind of engine file"] = "onnx",
    imgsz: Annotated[Count | None, "shorter side in pixels (default: the model's)"] = None,
    linked: Annotated[bool, "ONNX files that use the bundle's weights file instead of holding weights"] = False,
    out: Annotated[Path | None, "folder for the files alone (default: the bundle; 'bundled': runs/export-N)"] = None,
) -> Outcome:
    """Widths as engine files, pixels in, detections out, that run without torch.

    Example:
        slimdet export --model bundled --width 0.5 --format onnx --out engines
    """
    from slimdet.exporting import engine_files

    written = engine_files.export(model, width, format, imgsz, linked, out)
    return Outcome(written, engine_files.view(written))


def convert(
    source: Annotated[Existing, "a YOLO or VOC data set, the original's checkpoint, or a bundle made of one"],
    /,
    *,
    to: Annotated[Literal["coco", "bundle", "checkpoint"] | None, "what it becomes (default: what it can)"] = None,
    out: Annotated[Path | None, "folder, new or empty; a checkpoint's file (default: runs/convert-N)"] = None,
    config: Annotated[Existing | None, "a checkpoint's config file (default: the original's that fits)"] = None,
) -> Outcome:
    """A YOLO or VOC data set as COCO (images stay where they are), or the original system's checkpoint as a bundle.

    Example:
        slimdet convert my_yolo_dataset --to coco --out my_dataset
        slimdet convert mask_rcnn_r50_fpn_1x.pth --out my_model
    """
    from slimdet.cli import conversion

    written = conversion.convert(source, to, out, config)
    return Outcome(written, "\n".join(f"{name}: {path}" for name, path in written.items()))


def check(
    *,
    data: Annotated[Existing, "DATA.yaml, or with --images a COCO instances JSON"],
    images: Annotated[Existing | None, "folder of the images of a COCO JSON"] = None,
) -> Outcome:
    """Every fault of a data set, by file, id and reason; all images are decoded.

    Example:
        slimdet check --data my_dataset/data.yaml
    """
    from slimdet.data.check import check
    from slimdet.data.config import DataConfig, Split, read_data_config

    config = DataConfig(None, Split(images, data)) if images else read_data_config(data)
    splits = [split for split in (config.train, config.val) if split]
    faults = [fault for split in splits for fault in check(split.annotations, split.images)]
    document = {"faults": [asdict(fault) | {"id": str(fault.id)} for fault in faults]}
    mistake = f"{len(faults)} faults in {data}" if faults else ""
    return Outcome(document, "\n".join(map(str, faults)) or "no faults", mistake)


def doctor() -> Outcome:
    """Versions, engines, devices; what is missing and how to get it.

    Example:
        slimdet doctor
    """
    from slimdet.cli import doctor

    findings = doctor.doctor()
    return Outcome(findings, doctor.text(findings))


_VERBS = (demo, train, calibrate, val, predict, profile, extract, export, convert, check, doctor)
VERBS = {verb.__name__: verb for verb in _VERBS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `slimdet VERB ...` and return its exit code."""
    return run(VERBS, argv)
