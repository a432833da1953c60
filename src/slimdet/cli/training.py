"""The verbs that train: functions with the flags of `slimdet train` and `slimdet calibrate`."""

from collections.abc import Set
from pathlib import Path
from typing import Annotated, Any

from slimdet.cli import views
from slimdet.cli.command import NOTHING, Outcome
from slimdet.cli.flags import (
    ByRecipe,
    Count,
    Device,
    Existing,
    Fraction,
    Model,
    Natural,
    NonNegative,
    Parts,
    Positive,
    Sides,
    Start,
    Threads,
    Width,
    Widths,
    WidthsOrAll,
)
from slimdet.errors import ConfigError
from slimdet.training import settings
from slimdet.training.settings import TrainSettings as T

BY_RECIPE: Any = ByRecipe()


def train(
    *,
    data: Annotated[Existing | None, "DATA.yaml with train: and val:, or a folder as tools export it"] = None,
    recipe: Annotated[
        settings.RecipeName, "decides what is not given; paper: the plain sum, 1x schedule; fast: minutes on a CPU"
    ] = "default",
    model: Annotated[settings.Detector, "detector"] = T.model,
    backbone: Annotated[str, "resnet18/34/50/101/152, resnet50_thin, mobilenet_v2 or efficientnet_lite0"] = BY_RECIPE,
    neck: Annotated[settings.Neck, "feature pyramid; a CPU can train the light one"] = BY_RECIPE,
    head_norm: Annotated[settings.HeadNorm, "norm layers in pyramid and heads"] = BY_RECIPE,
    nms: Annotated[
        settings.Suppression | None,
        "a box that overlaps a better one goes: of its class, or of all classes (default: the bundle's, else class)",
    ] = T.nms,
    freeze_backbone_norm: Annotated[bool, "keep the backbone's norm layers as they were"] = T.freeze_backbone_norm,
    weights: Annotated[Start, "start: imagenet, none, a FILE with a backbone, or a BUNDLE to fine-tune"] = T.weights,
    widths: Annotated[Widths, "widths to train, 1.0 among them, or a range, 0.25-1.0"] = T.widths,
    scope: Annotated[settings.ScopeName, "what narrows"] = T.scope,
    width_sampling: Annotated[
        settings.WidthSampling,
        "widths of a step: all; both ends and one between; both ends and any two; these with each stage's own",
    ] = BY_RECIPE,
    distill: Annotated[NonNegative, "weight of what the widest teaches the others; 0 is the paper"] = BY_RECIPE,
    teacher: Annotated[
        settings.Teacher, "the widest teaches the narrower ones; or the BUNDLE that it starts from, as it was, all"
    ] = T.teacher,
    distill_parts: Annotated[Parts, "what is taught: features, classes, rpn, masks"] = BY_RECIPE,
    loss_exponent: Annotated[NonNegative, "losses of width w count w ** -LOSS_EXPONENT"] = T.loss_exponent,
    gradient_reduction: Annotated[
        settings.GradientReduction, "of n widths that share a weight: sum (the paper), sum / sqrt(n), or sum / n"
    ] = BY_RECIPE,
    widest_only: Annotated[Fraction, "first part of the training, in which the widest alone is trained"] = BY_RECIPE,
    sort: Annotated[bool, "sort channels by importance before slimming: the backbone's, all of a BUNDLE"] = BY_RECIPE,
    recalibrate: Annotated[
        Natural | None, "images for new statistics at the end (default: 512 for a range)"
    ] = T.recalibrate,
    epochs: Annotated[Positive, "passes over the training images"] = BY_RECIPE,
    batch: Annotated[Count, "images in a step, of all processes together"] = BY_RECIPE,
    accumulate: Annotated[Count, "parts of a batch, computed one after another: less memory"] = T.accumulate,
    optimizer: Annotated[settings.Optimizer, "what makes a step of the gradients"] = BY_RECIPE,
    lr: Annotated[Positive | None, "peak learning rate"] = BY_RECIPE,
    schedule: Annotated[settings.Schedule, "x 0.1 at 2/3 and 11/12, or a cosine to zero"] = BY_RECIPE,
    warmup: Annotated[Natural, "steps of linear warm-up"] = BY_RECIPE,
    weight_decay: Annotated[NonNegative | None, "pull of weights towards 0"] = BY_RECIPE,
    clip: Annotated[Positive, "largest norm of the gradient"] = T.clip,
    ema: Annotated[Fraction, "decay of the average of the weights, as 0.998; 0 is off"] = BY_RECIPE,
    augment: Annotated[
        settings.Augment, "default: flip, colour, scale; strong: more, and crop; mosaic: four images in one, too"
    ] = BY_RECIPE,
    imgsz: Annotated[Sides | None, "shorter side of images, pixels; or a range, 128-256"] = BY_RECIPE,
    bf16: Annotated[bool, "compute in bfloat16"] = T.bf16,
    compile: Annotated[bool, "compile the backbone first: minutes, for long trainings on a GPU"] = T.compile,
    checkpoint_activations: Annotated[
        bool, "keep less for the backward pass and compute it again: less memory, longer"
    ] = T.checkpoint_activations,
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
        slimdet train --data data.yaml
        slimdet train --data data.yaml --recipe fast --weights mobilenet_v2.pth
    """
    fields: dict[str, Any] = {k: v for k, v in locals().items() if k in given and k not in ("out", "resume")}
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
            result = runs.resume(resume, callbacks=callbacks, **fields)
        else:
            result = runs.train(out=out, callbacks=callbacks, **fields)
    return Outcome(result, views.training(result)) if distributed.find_place().main else NOTHING


def calibrate(
    *,
    model: Model,
    data: Annotated[Existing, "DATA.yaml or folder: statistics of its train: images, accuracy on its val:"],
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
