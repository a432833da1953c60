"""Batches for torchvision's detectors, the same ones for the same seed whatever the number of workers."""

import signal
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as F

from slimdet.errors import ConfigError, DataError, SlimdetError
from slimdet.messages import first_line

Batch = tuple[list[Tensor], list[dict[str, Any]]]


def loader(
    dataset: Dataset[tuple[Tensor, dict[str, Any]]],
    batch: int,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    epoch: int = 0,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[Any]:
    """Make a DataLoader whose batches are (list of images, list of targets); images keep their own sizes.

    Of a data set that can give its images as bytes (`CocoDataset.as_bytes`), they are uint8: see `to_device`.

    Shuffled, the images of a batch are all upright or none is, of a data set that tells which are (`upright`: bool
    [images]): detectors pad the images of a batch to one size, and a batch of both kinds is a third larger.

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
        share: (rank, number of processes): of each batch every such process gets its own images, an equal number.

    Raises:
        ConfigError: a number out of range, or a batch that the processes cannot share equally.
        DataError: a data set without images.
    """
    for name, value, least in (("batch", batch, 1), ("workers", workers, 0), ("seed", seed, 0), ("epoch", epoch, 0)):
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} {value} is not a whole number of at least {least}")
    rank, world = share
    check_shared(batch, world)
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise DataError("the data set has no images")
    upright = getattr(dataset, "upright", None) if shuffle else None
    return _Loader(
        _Seeded(dataset),
        batch_size=batch // world,
        sampler=EpochSampler(size, shuffle, seed, epoch, _Part(batch, rank, world), upright),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_leave_ctrl_c_to_the_parent,
        generator=torch.Generator(),  # without one of its own, every pass would draw from the global one
    )


def check_shared(batch: int, world: int) -> None:
    """Check that `world` processes can share a batch equally.

    Raises:
        ConfigError: they cannot.
    """
    if batch % world:
        lower, higher = batch // world * world, -(-batch // world) * world
        ways = " or ".join(str(number) for number in (lower, higher) if number)
        raise ConfigError(f"--batch {batch} cannot be shared equally by {world} processes; {ways} can")


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


def _leave_ctrl_c_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to every process


class _Part(NamedTuple):
    """One process's part of every batch: each `world`-th item from `rank` on, or, where there is none, the first."""

    batch: int
    rank: int
    world: int

    def of(self, size: int) -> Iterator[int]:
        """The places of this process's items among `size` items in batches."""
        for start in range(0, size, self.batch):
            end = min(start + self.batch, size)
            yield from range(start + self.rank, end, self.world) or range(start, start + 1)


_WHOLE = _Part(batch=1, rank=0, world=1)


class EpochSampler(Sampler[Any]):
    """Yields (index, seed of the item) for every item once, as the seed and the epoch say; or for a part of them."""

    def __init__(
        self,
        size: int,
        shuffle: bool,
        seed: int,
        epoch: int = 0,
        part: _Part = _WHOLE,
        upright: NDArray[np.bool_] | None = None,
    ) -> None:
        self.size, self.shuffle, self.seed, self.epoch, self.part = size, shuffle, seed, epoch, part
        self.upright = upright
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that the next iteration is of; the first `start` of this process's items are left out."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return sum(1 for _ in self.part.of(self.size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        seeds = random.integers(2**62, size=self.size)
        order = random.permutation(self.size) if self.shuffle else np.arange(self.size)
        if self.upright is not None:
            order = _alike(order, self.upright, self.part.batch, random)
        places = islice(self.part.of(self.size), self.start, None)
        return ((int(order[place]), int(seeds[order[place]])) for place in places)


def _alike(
    order: NDArray[np.intp], upright: NDArray[np.bool_], batch: int, random: np.random.Generator
) -> NDArray[np.intp]:
    """The same items, batch by batch of one kind in random order; at the end is what is left of both kinds."""
    kinds = [order[upright[order]], order[~upright[order]]]
    whole = [kind[: len(kind) // batch * batch].reshape(-1, batch) for kind in kinds]
    rest = [kind[len(kind) // batch * batch :] for kind in kinds]
    return np.concatenate([random.permutation(np.concatenate(whole)).ravel(), *rest])


class _Loader(DataLoader[Any]):
    """Says what was wrong with the data in one line, from workers too: they send a traceback as the message."""

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from super().__iter__()
        except SlimdetError as error:
            last = str(error).strip().splitlines()[-1]
            raise type(error)(last.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")) from None
        except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
            # torch's own error, or that of the socket by which a batch comes.
            if not self.num_workers or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
                raise
            raise DataError(
                f"a process that reads images died ({first_line(error)}), perhaps for want of memory: lower --workers "
                f"(now {self.num_workers})"
            ) from error


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
