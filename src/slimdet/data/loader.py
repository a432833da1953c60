"""Batches for torchvision's detectors, the same ones for the same seed whatever the number of workers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as F

from slimdet.errors import ConfigError, DataError, SlimdetError

Batch = tuple[list[Tensor], list[dict[str, Any]]]


def loader(
    dataset: Dataset[tuple[Tensor, dict[str, Any]]],
    batch: int,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    epoch: int = 0,
) -> DataLoader[Any]:
    """Make a DataLoader whose batches are (list of images, list of targets); images keep their own sizes.

    Of a data set that can give its images as bytes (`CocoDataset.as_bytes`), they are uint8: see `to_device`.

    Order and augmentation are functions of `seed`, the epoch and the item alone: other numbers of workers, or a start
    at a later epoch, give the same batches. Call `.sampler.set_epoch(e)` before each epoch, as with PyTorch's
    DistributedSampler.

    Args:
        dataset: with a length; its randomness has to come from torch's generator.
        batch: images a batch; the last batch may be smaller.
        shuffle: another order in every epoch, or always the data set's own.
        seed: 0 or above.
        workers: processes that decode; 0 decodes in this one.
        epoch: the epoch to start with, 0 or above.

    Raises:
        ConfigError: a number out of range.
        DataError: a data set without images.
    """
    for name, value, least in (("batch", batch, 1), ("workers", workers, 0), ("seed", seed, 0), ("epoch", epoch, 0)):
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} {value} is not a whole number of at least {least}")
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise DataError("the data set has no images")
    return _Loader(
        _Seeded(dataset),
        batch_size=batch,
        sampler=EpochSampler(size, shuffle, seed, epoch),
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # without one of its own, every pass would draw from the global one
    )


def floats(image: Tensor) -> Tensor:
    """An image as detectors take it, float32 in 0..1; one of uint8 in 0..255 is scaled, another one stays."""
    return F.to_dtype(image, torch.float32, scale=True) if image.dtype == torch.uint8 else image


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """Images as float32 and the tensors of targets on a device; images cross over as the loader gave them."""
    images, targets = batch
    return (
        [floats(image.to(device, non_blocking=True)) for image in images],
        [{name: v.to(device) for name, v in target.items() if isinstance(v, Tensor)} for target in targets],
    )


def collate(items: list[tuple[Tensor, dict[str, Any]]]) -> Batch:
    """Turn a list of (image, target) into (images, targets)."""
    return [image for image, _ in items], [target for _, target in items]


class EpochSampler(Sampler[Any]):
    """Yields (index, seed of the item) for every item once, as the seed and the epoch say."""

    def __init__(self, size: int, shuffle: bool, seed: int, epoch: int = 0) -> None:
        self.size, self.shuffle, self.seed, self.epoch = size, shuffle, seed, epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is of."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        seeds = random.integers(2**62, size=self.size)
        order = random.permutation(self.size) if self.shuffle else np.arange(self.size)
        return ((int(index), int(seeds[index])) for index in order)


class _Loader(DataLoader[Any]):
    """Says what was wrong with the data in one line, from workers too: they send a traceback as the message."""

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from super().__iter__()
        except SlimdetError as error:
            last = str(error).strip().splitlines()[-1]
            raise type(error)(last.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")) from None


class _Seeded(Dataset[Any]):
    """A data set asked for (index, seed): torch's generator is set for the item, and put back afterwards."""

    def __init__(self, dataset: Any) -> None:
        self.item = getattr(dataset, "as_bytes", dataset.__getitem__)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, seed = key
        before = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed)  # not torch.manual_seed: the GPU's generator is none of ours
            return self.item(index)
        finally:
            torch.set_rng_state(before)
