"""One function per verb, no logic; defaults are the settings'. `slimdet.cli.command` makes flags and help of it."""

import os
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Literal

from slimdet.cli import views
from slimdet.cli.command import NOTHING, Outcome, run
from slimdet.cli.flags import (
    Count,
    Device,
    Engine,
    EngineDevice,
    Existing,
    Fraction,
    Model,
    Natural,
    NonNegative,
    Parts,
    Positive,
    Proposals,
    Side,
    Sides,
    Source,
    Start,
    Threads,
    Width,
    WidthOrAll,
    Widths,
    WidthsOrAll,
)
from slimdet.errors import ConfigError
from slimdet.exporting.settings import ExportSettings, Format
from slimdet.report.settings import ProfileSettings, ValSettings
from slimdet.runtime.engine import EngineSettings
from slimdet.runtime.prediction import PredictSettings
from slimdet.training import settings
from slimdet.training.settings import TrainSettings as T


def demo(
    *,
    engine: Engine = EngineSettings.engine,
    device: EngineDevice = EngineSettings.device,
    threads: Threads = EngineSettings.threads,
    out: Annotated[Path | None, "folder (default runs/demo)"] = None,
) -> Outcome:
    """The bundled model on the bundled photographs, at every width.

    Example:
        slimdet demo
    """
    from slimdet.cli.demo import demo

    result = demo(EngineSettings(engine, device, threads), out)
    return Outcome(result, views.demo(result))


def train(
    *,
    data: Annotated[Existing | None, "DATA.yaml with train: and val:"] = None,
    model: Annotated[settings.Detector, "detector"] = T.model,
    backbone: Annotated[str, "resnet18/34/50/101/152, resnet50_thin, mobilenet_v2 or efficientnet_lite0"] = T.backbone,
    neck: Annotated[settings.Neck, "feature pyramid; a CPU can train the light one"] = T.neck,
    head_norm: Annotated[settings.HeadNorm, "norm layers in pyramid and heads"] = T.head_norm,
    freeze_backbone_norm: Annotated[bool, "keep the backbone's norm layers as they were"] = T.freeze_backbone_norm,
    weights: Annotated[Start, "start: imagenet, none, a FILE with a backbone, or a BUNDLE to fine-tune"] = T.weights,
    widths: Annotated[Widths, "widths to train, 1.0 among them, or a range, 0.25-1.0"] = T.widths,
    scope: Annotated[settings.ScopeName, "what narrows"] = T.scope,
    width_sampling: Annotated[
        settings.WidthSampling, "widths of a step: all; both ends and one between; both ends and any two, mostly narrow"
    ] = T.width_sampling,
    distill: Annotated[NonNegative, "weight of what the widest teaches the others; 0 is the paper"] = T.distill,
    distill_parts: Annotated[Parts, "what is taught: features, classes, rpn, masks"] = T.distill_parts,
    loss_exponent: Annotated[NonNegative, "losses of width w count w ** -LOSS_EXPONENT"] = T.loss_exponent,
    gradient_reduction: Annotated[
        settings.GradientReduction, "of n widths that share a weight: sum (the paper), sum / sqrt(n), or sum / n"
    ] = T.gradient_reduction,
    widest_only: Annotated[
        Fraction, "first part of the training, in which the widest alone is trained"
    ] = T.widest_only,
    sort: Annotated[bool, "sort channels by importance before slimming: the backbone's, all of a BUNDLE"] = T.sort,
    recalibrate: Annotated[
        Natural | None, "images for new statistics at the end (default: 512 for a range)"
    ] = T.recalibrate,
    epochs: Annotated[Positive, "passes over the training images"] = T.epochs,
    batch: Annotated[Count, "images in a step, of all processes together"] = T.batch,
    lr: Annotated[Positive | None, "peak learning rate (default 0.02 for a batch of 16, scaled to --batch)"] = T.lr,
    schedule: Annotated[settings.Schedule, "x 0.1 at 2/3 and 11/12, or a cosine to zero"] = T.schedule,
    warmup: Annotated[Natural, "steps of linear warm-up"] = T.warmup,
    weight_decay: Annotated[NonNegative, "L2 penalty"] = T.weight_decay,
    clip: Annotated[Positive, "largest norm of the gradient"] = T.clip,
    ema: Annotated[Fraction, "decay of the average of the weights, as 0.998; 0 is off"] = T.ema,
    augment: Annotated[settings.Augment, "flip; strong: scale, colour, crop too"] = T.augment,
    imgsz: Annotated[
        Sides | None, "shorter side of images, pixels; or a range, 128-256 (default: the neck's)"
    ] = T.imgsz,
    bf16: Annotated[bool, "compute in bfloat16"] = T.bf16,
    device: Device = T.device,
    seed: Annotated[Natural, "of everything drawn at random"] = T.seed,
    workers: Annotated[Natural, "processes that read images"] = T.workers,
    threads: Threads = T.threads,
    save_every: Annotated[Positive, "seconds between checkpoints"] = T.save_every,
    evaluate: Annotated[bool, "measure on val:, every width at the end"] = T.evaluate,
    val_every: Annotated[Natural, "epochs between validations on the way; 0 is none"] = T.val_every,
    val_widths: Annotated[WidthsOrAll, "what is validated on the way: some widths, or all"] = T.val_widths,
    patience: Annotated[
        Natural, "end after so many validations in a row that found nothing better; 0 is never"
    ] = T.patience,
    check: Annotated[bool, "decode all images before the first step, unless they are very many"] = T.check,
    out: Annotated[Path | None, "folder (default runs/train-N)"] = None,
    resume: Annotated[Existing | None, "folder of a run to go on with, by its settings; --epochs lengthens it"] = None,
    given: Set[str] = frozenset(),
) -> Outcome:
    """Train one set of weights for many widths.

    Example:
        slimdet train --data data.yaml --model mask_rcnn --backbone mobilenet_v2 --neck light --weights mobilenet.pth
    """
    fields: dict[str, Any] = {k: value for k, value in locals().items() if k not in ("out", "resume", "given")}
    fields["data"] = str(data or "")
    from slimdet.cli.live import training_view
    from slimdet.report.training import RunPictures
    from slimdet.training import runs
    from slimdet.training.processes import distributed
    from slimdet.training.watching.callbacks import Guarded

    if resume and out is not None:
        raise ConfigError(f"--resume {resume} goes on in its own folder; leave out --out {out}")
    with training_view() as view:
        callbacks = [Guarded(RunPictures()), view]
        if resume:
            result = runs.resume(resume, callbacks=callbacks, **{name: fields[name] for name in fields.keys() & given})
        else:
            result = runs.train(out=out, callbacks=callbacks, **fields)
    return Outcome(result, views.training(result)) if distributed.find_place().main else NOTHING


def calibrate(
    *,
    model: Model,
    data: Annotated[Existing, "DATA.yaml: statistics of its train: images, accuracy on its val:"],
    width: Annotated[Width, "the width; with --plan, the plan's name"],
    plan: Annotated[Existing | None, 'JSON file, widths by stage: {"backbone.body.layer4": 0.5}'] = None,
    images: Annotated[Count, "training images to collect from"] = settings.CalibrateSettings.images,
    batch: Annotated[Count, "images that are normalised together"] = settings.CalibrateSettings.batch,
    device: Device = settings.CalibrateSettings.device,
    seed: Annotated[Natural, "of the choice of images"] = settings.CalibrateSettings.seed,
    out: Annotated[Path | None, "new folder for the bundle (default: in place; 'bundled': runs/calibrate-N)"] = None,
) -> Outcome:
    """Give a model a width that it was not trained at: statistics for its norms, and its accuracy.

    Example:
        slimdet calibrate --model runs/train-1/model --data data.yaml --width 0.6
    """
    from slimdet.training.calibration import calibrate

    result = calibrate(model, data, width, settings.CalibrateSettings(plan, images, batch, device, seed), out=out)
    return Outcome(result, views.calibration(result))


def val(
    *,
    model: Model,
    data: Annotated[Existing, "COCO instances JSON, or DATA.yaml, whose val: is taken"],
    images: Annotated[Existing | None, "folder of the images (not with DATA.yaml)"] = None,
    width: WidthOrAll = ValSettings.width,
    imgsz: Side = ValSettings.imgsz,
    device: Device = ValSettings.device,
    workers: Annotated[Natural, "processes that read images"] = ValSettings.workers,
    out: Annotated[Path | None, "folder (default runs/val-N)"] = None,
) -> Outcome:
    """The 12 COCO numbers of every width, with tables and pictures by class.

    Example:
        slimdet val --model bundled --data annotations/instances_val.json --images images --width all
    """
    from slimdet.report.validation import val

    with views.evaluation_bar() as progress:
        result = val(model, data, ValSettings(width, imgsz, device, workers), images=images, out=out, progress=progress)
    return Outcome({"run": result.run, "widths": result.widths}, views.validation(result))


def predict(
    *sources: Annotated[Source, "images, folders or glob patterns"],
    model: Model,
    width: Annotated[Width, "how wide to run"] = PredictSettings.width,
    conf: Annotated[Fraction, "least score of a detection"] = PredictSettings.conf,
    engine: Engine = PredictSettings.engine,
    imgsz: Side = PredictSettings.imgsz,
    proposals: Proposals = PredictSettings.proposals,
    device: EngineDevice = PredictSettings.device,
    threads: Threads = PredictSettings.threads,
    batch: Annotated[Count, "images at a time; those that become one size run together"] = PredictSettings.batch,
    out: Annotated[Path | None, "folder (default runs/predict-N)"] = None,
) -> Outcome:
    """Detect objects in images: drawn pictures and COCO JSON.

    Example:
        slimdet predict photo.jpg holiday/ --model bundled --width 0.5
    """
    from slimdet.runtime.prediction import predict

    found = predict(sources, model, PredictSettings(engine, device, threads, imgsz, proposals, width, conf, batch), out)
    document = {"run": found.run, **found.coco, "broken": found.broken}
    return Outcome(document, views.predictions(found), views.unread(found))


def profile(
    *,
    model: Model,
    engine: Engine = ProfileSettings.engine,
    imgsz: Side = ProfileSettings.imgsz,
    proposals: Proposals = ProfileSettings.proposals,
    device: EngineDevice = ProfileSettings.device,
    threads: Threads = ProfileSettings.threads,
    repeats: Annotated[Count, "timed runs of every width"] = ProfileSettings.repeats,
) -> Outcome:
    """Latency, memory, disk, and with torch multiply-adds, of every width.

    Example:
        slimdet profile --model bundled --engine onnxruntime
    """
    from slimdet.report.costs import costs

    found = costs(model, ProfileSettings(engine, device, threads, imgsz, proposals, repeats))
    return Outcome(found, views.costs(found))


def extract(
    *,
    model: Model,
    width: Annotated[Width, "one of the bundle's widths"],
    out: Annotated[Path | None, "folder to write, new or empty (default: runs/extract-N)"] = None,
) -> Outcome:
    """One width as a plain torchvision detector that needs no slimdet.

    Example:
        slimdet extract --model bundled --width 0.5 --out half
    """
    from slimdet.bundle.extraction import extract

    written = extract(model, width, out)
    return Outcome(written, views.extraction(written))


def export(
    *,
    model: Model,
    width: WidthOrAll = ExportSettings.width,
    format: Annotated[Format, "kind of engine file"] = ExportSettings.format,
    imgsz: Side = ExportSettings.imgsz,
    linked: Annotated[bool, "ONNX files that use the bundle's weights file and hold none"] = ExportSettings.linked,
    out: Annotated[Path | None, "folder for the files alone (default: the bundle; 'bundled': runs/export-N)"] = None,
) -> Outcome:
    """Widths as engine files, pixels in, detections out, that run without torch.

    Example:
        slimdet export --model bundled --width 0.5 --format onnx --out engines
    """
    from slimdet.exporting.engine_files import export

    written = export(model, ExportSettings(width, format, imgsz, linked), out=out)
    return Outcome(written, views.export(written))


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
    from slimdet.cli.conversion import convert

    written = convert(source, to, out, config)
    return Outcome(written.files, views.conversion(written))


def check(
    *,
    data: Annotated[Existing, "DATA.yaml, or with --images a COCO instances JSON"],
    images: Annotated[Existing | None, "folder of the images of a COCO JSON"] = None,
) -> Outcome:
    """What a data set holds, and every fault, by file, id and reason; all images are decoded.

    Example:
        slimdet check --data my_dataset/data.yaml
    """
    from slimdet.data.check import check
    from slimdet.data.config import DataConfig, Split, read_data_config
    from slimdet.data.summary import summary

    config = DataConfig(None, Split(images, data)) if images else read_data_config(data)
    splits = {name: split for name, split in vars(config).items() if split is not None}
    faults = [one for split in splits.values() for one in check(split.annotations, split.images)]
    unread = {fault.file for fault in faults if fault.kind == "unreadable annotations"}
    held = {name: summary(one.annotations) for name, one in splits.items() if str(one.annotations) not in unread}
    document = {"splits": held, "faults": [vars(fault) | {"id": str(fault.id)} for fault in faults]}
    return Outcome(document, views.check(held, faults), f"{len(faults)} faults in {data}" if faults else "")


def doctor() -> Outcome:
    """Versions, engines, devices; what is missing and how to get it.

    Example:
        slimdet doctor
    """
    from slimdet.cli.doctor import doctor, text

    findings = doctor()
    return Outcome(findings, text(findings))


_ALL = (demo, train, calibrate, val, predict, profile, extract, export, convert, check, doctor)
VERBS = {verb.__name__: verb for verb in _ALL}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `slimdet VERB ...` and return its exit code."""
    # Read when torch is imported: threads that wait by spinning, the default, make a step on a busy machine many times
    # slower (benchmarks/training/waiting.json).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    return run(VERBS, argv)
