"""Statistics of batch norms for a width: after training with random widths, or for a width that was never trained.

The statistics are collected as training makes them: the whole training forward pass with its sampled proposals, each
batch normalised by its own statistics, but without augmentation, without gradients and in full precision. Means and
variances are merged over all positions of all images in float64; averaging the variances of batches would lose the
variance between them ("Universally Slimmable Networks", ICCV 2019, section 3.1, shows that statistics of a thousand
images suffice).

Letters: B images, C channels.
"""

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Group
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

from slimdet.bundle import manifest, store
from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.data.loader import loader
from slimdet.devices import choose_device
from slimdet.errors import BundleError, DataError
from slimdet.evaluation.inference import check_classes
from slimdet.evaluation.validation import validate
from slimdet.files import new_run_dir
from slimdet.models.image_size import check_image_sizes
from slimdet.models.kinds import require
from slimdet.report import plots
from slimdet.widths import parse_width, read_plan

logger = logging.getLogger("slimdet")

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


class _Moments:
    """Count, mean and sum of squared differences of a norm's inputs by channel, merged batch by batch (Chan et al.)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Take in x [B, C, ...], of any size."""
        values = x.detach().transpose(0, 1).flatten(1).double()  # [C, positions]
        count = values.shape[1]
        if not count:
            return
        mean = values.mean(1)
        squares = (values - mean[:, None]).square().sum(1)
        total = self.count + count
        difference = mean - self.mean
        self.squares = self.squares + squares + difference.square() * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total


@contextmanager
def _collecting(detector: nn.Module) -> Iterator[dict[str, _Moments]]:
    """Collect the inputs of every norm with statistics, the detector in training mode."""
    norms = {
        name: module for name, module in detector.named_modules() if isinstance(module, (_BatchNorm, FrozenBatchNorm2d))
    }
    moments = {name: _Moments() for name in norms}
    modes = {module: module.training for module in detector.modules()}

    def look(norm: Any, inputs: tuple[Tensor, ...], name: str) -> None:
        moments[name].add(inputs[0])
        if isinstance(norm, FrozenBatchNorm2d):  # it would never normalise by the batch
            cast(Tensor, norm.running_mean).copy_(inputs[0].mean((0, 2, 3)))
            cast(Tensor, norm.running_var).copy_(inputs[0].var((0, 2, 3), unbiased=False))

    handles = [norm.register_forward_pre_hook(partial(look, name=name)) for name, norm in norms.items()]
    detector.train()
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def collect_statistics(model: Slimmable, width: float, batches: Sequence[Batch]) -> None:
    """Replace the statistics of one width's batch norms; no other width and no weight changes.

    Args:
        model: the width is one of its own.
        width: the width.
        batches: images and targets as in training, without augmentation; the larger each is, the better.

    Raises:
        DataError: statistics that are not finite.
    """
    twin: Any = model.twin(width)
    state = torch.get_rng_state()
    torch.manual_seed(0)  # the same sampled proposals for the same images
    try:
        with _collecting(twin) as moments:
            for images, targets in batches:
                twin(images, targets)
    finally:
        torch.set_rng_state(state)
    for name, found in moments.items():
        if found.count > 1:
            _replace(twin.get_submodule(name), name, found)


def _replace(norm: Any, name: str, found: _Moments) -> None:
    variance = found.squares / (found.count - 1)
    if not (found.mean.isfinite().all() and variance.isfinite().all()):
        raise DataError(f"{name} sees values that are not finite: the weights of this width are broken")
    norm.running_mean.copy_(found.mean)
    norm.running_var.copy_(variance)


def calibration_batches(
    dataset: CocoDataset, images: int, batch: int, seed: int = 0, device: torch.device | str = "cpu"
) -> list[Batch]:
    """The first `images` of the training images in an order shuffled by `seed`, in batches, on `device`."""
    batch = min(batch, images)
    shuffled = loader(dataset, batch=batch, shuffle=True, seed=seed)
    chosen = itertools.islice(shuffled, math.ceil(min(images, len(dataset)) / batch))
    return [
        (
            [image.to(device) for image in images_],
            [{k: v.to(device) for k, v in target.items() if isinstance(v, Tensor)} for target in targets],
        )
        for images_, targets in chosen
    ]


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` did: the bundle, the width, images used, its numbers on val (empty where there is none)."""

    model: str
    width: float
    images: int
    metrics: dict[str, Any]


def calibrate(
    model: str,
    data: Path,
    width: float,
    plan: Path | None = None,
    images: int = 512,
    batch: int = 16,
    device: str = "auto",
    seed: int = 0,
    out: Path | None = None,
) -> Calibration:
    """Give a bundle a width that it was not trained at, or new statistics to one that it has; measure it on val.

    Args:
        model: a bundle's folder, which is replaced by the new bundle, or "bundled".
        data: DATA.yaml: statistics are of its train images, accuracy of its val images.
        width: the width; with a plan, its name.
        plan: JSON file, {stage: width}, for `Slimmable.add`.
        images: training images to collect statistics from.
        batch: images that are normalised together.
        device: as `slimdet.devices.choose_device` takes it.
        seed: of the choice of images.
        out: a new folder for the bundle, which then leaves `model` as it is; for "bundled", which belongs to the
            package, the default is `runs/calibrate-N`.

    Raises:
        SlimdetError: a model, width, plan or data set that cannot be used; the bundle stays as it was.
    """
    value = parse_width(width)
    stages = None if plan is None else read_plan(plan)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"--out {out} is there already and not empty; choose another folder")
    masks = require(manifest.read(model).architecture, "calibrate", model).masks
    slimmable = store.load(model)
    config = read_data_config(data)
    if config.train is None:
        raise DataError(f"{data} has no 'train:', which the statistics are collected from")
    before = slimmable.widths
    if stages is not None or value not in before:
        slimmable.add(value, stages)
    if slimmable.norms == "own" and value not in before:
        text = "%s was trained at %s only: other widths are poor without training; train with --widths 0.25-1.0"
        logger.warning(text, model, ", ".join(map(str, before)))
    elif (asked := min([value, *(stages or {}).values()])) < min(before):
        text = "%s has no width under %s: %s is poor without training; train with --widths %s-1.0"
        logger.warning(text, model, min(before), asked, asked)
    dataset = CocoDataset(config.train.annotations, config.train.images, masks=masks, train=True)
    check_classes(slimmable.classes, dataset)
    if not len(dataset):
        raise DataError(f"{config.train.annotations} has no images")
    val = None if config.val is None else CocoDataset(config.val.annotations, config.val.images, masks=masks)
    check_image_sizes(slimmable, *(part for part in (dataset, val) if part is not None))
    place = choose_device(device)
    slimmable.to(place)
    batches = calibration_batches(dataset, images, batch, seed, place)
    collect_statistics(slimmable, value, batches)
    used = sum(len(some) for some, _ in batches)
    metrics: dict[str, Any] = {}
    if val is not None:
        metrics = validate(slimmable, val, (value,), device).widths[str(value)]
    target = out or (new_run_dir("calibrate") / "model" if model == "bundled" else Path(model))
    record = {"images": used, "batch": batch, "seed": seed, "data": str(data)}
    slimmable.to("cpu")
    slimmable.calibrations = {**slimmable.calibrations, str(value): record}
    kept = {key: numbers for key, numbers in slimmable.metrics.items() if key != str(value)}
    exported = out is None and model != "bundled" and any(map(manifest.read(model).engines, ("onnx", "openvino")))
    path = store.save(slimmable, target, metrics=kept | ({str(value): metrics} if metrics else {}))
    if exported:
        logger.warning("the engine files of %s were of the weights before: 'slimdet export --model %s'", path, path)
    return Calibration(str(path), value, used, metrics)


def view(result: Calibration) -> Group:
    """What a calibration shows."""
    parts: list[Any] = [plots.accuracy_table({str(result.width): result.metrics})] if result.metrics else []
    text = f"width {result.width} has statistics of {result.images} images; the bundle is {result.model}"
    return Group(*parts, text)
