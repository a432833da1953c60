"""Statistics of batch norms for a width: after training with random widths, or for a width that was never trained.

The statistics are collected as training makes them: the whole training forward pass with its sampled proposals, each
batch normalised by its own statistics, but without augmentation, without gradients and in full precision. Means and
variances are merged over all positions of all images in float64; averaging the variances of batches would lose the
variance between them ("Universally Slimmable Networks", ICCV 2019, section 3.1, shows that statistics of a thousand
images suffice).

Letters: B images, C channels.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset
from torchvision.ops import FrozenBatchNorm2d

from slimdet.core.slimmable import Slimmable
from slimdet.data.loader import Batch, loader, to_device
from slimdet.errors import DataError
from slimdet.models.image_size import resize_shorter_side
from slimdet.widths import parse_width


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
def collect_statistics(
    model: Slimmable, widths: Sequence[float], batches: Iterable[Batch], sizes: Sequence[int] = ()
) -> int:
    """Replace the statistics of some widths' batch norms; no other width and no weight changes.

    Args:
        model: the widths are its own.
        widths: the widths; each batch runs at all of them and is not needed again.
        batches: images and targets as in training, without augmentation; the larger each is, the better.
        sizes: shorter sides that the batches take turns at, where the model is to serve them all; the last one stays
            set. Without them the model's own.

    Returns:
        The number of images.

    Raises:
        DataError: statistics that are not finite.
    """
    twins: dict[float, Any] = {width: model.twin(width) for width in widths}
    state = torch.get_rng_state()
    used = 0
    try:
        with ExitStack() as stack:
            moments = {width: stack.enter_context(_collecting(twin)) for width, twin in twins.items()}
            for number, (images, targets) in enumerate(batches):
                for twin in twins.values():
                    if sizes:
                        resize_shorter_side(twin, sizes[number % len(sizes)])
                    torch.manual_seed(number)  # the same sampled proposals for the same images
                    twin(images, targets)
                used += len(images)
    finally:
        torch.set_rng_state(state)
        if sizes:
            for twin in twins.values():
                resize_shorter_side(twin, sizes[-1])
    for width, twin in twins.items():
        for name, found in moments[width].items():
            if found.count > 1:
                _replace(twin.get_submodule(name), name, found)
        model.borrowed.discard(parse_width(width))
    return used


def _replace(norm: Any, name: str, found: _Moments) -> None:
    variance = found.squares / (found.count - 1)
    if not (found.mean.isfinite().all() and variance.isfinite().all()):
        raise DataError(f"{name} sees values that are not finite: the weights of this width are broken")
    norm.running_mean.copy_(found.mean)
    norm.running_var.copy_(variance)


def calibration_batches(
    dataset: Dataset[tuple[Tensor, dict[str, Any]]],
    images: int,
    batch: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """The first `images` of the training images in an order shuffled by `seed`, in batches, on `device`.

    One batch is held at a time.
    """
    batch = min(batch, images)
    shuffled = loader(dataset, batch=batch, shuffle=True, seed=seed)
    count = min(images, len(cast(Sized, dataset)))
    for chosen in itertools.islice(shuffled, math.ceil(count / batch)):
        yield to_device(chosen, device)
