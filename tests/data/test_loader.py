"""Batches are a function of the seed, the epoch and nothing else."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from slimdet.data.coco import CocoDataset
from slimdet.data.loader import loader
from slimdet.data.transforms import augmentation
from slimdet.errors import ConfigError, DataError, ImageError

from .conftest import CocoFiles


class Numbers(Dataset):
    """Item i is an image full of i, and a random number drawn as augmentation would."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        return torch.full((3, 2 + index, 4), float(index)), {"image_id": index, "draw": torch.rand(2)}


def draws(**options) -> tuple[list[int], list[list[float]]]:
    batches = list(loader(Numbers(12), 5, **options))
    targets = [target for _, targets in batches for target in targets]
    return [target["image_id"] for target in targets], [target["draw"].tolist() for target in targets]


def test_batches_are_lists_of_images_of_their_own_size() -> None:
    images, targets = next(iter(loader(Numbers(12), 5)))
    assert isinstance(images, list)
    assert isinstance(targets, list)
    assert [image.shape for image in images] == [(3, 2 + index, 4) for index in range(5)]
    assert len(loader(Numbers(12), 5)) == 3
    assert [len(images) for images, _ in loader(Numbers(12), 5)] == [5, 5, 2]


def test_every_item_comes_once() -> None:
    assert draws()[0] == list(range(12))
    shuffled = draws(shuffle=True)[0]
    assert shuffled != list(range(12))
    assert sorted(shuffled) == list(range(12))


def test_the_same_seed_gives_the_same_batches_with_any_number_of_workers() -> None:
    alone = draws(shuffle=True, seed=3)
    torch.manual_seed(99)  # what else draws from torch's generator does not matter
    assert draws(shuffle=True, seed=3) == alone
    assert draws(shuffle=True, seed=3, workers=2) == alone
    assert draws(shuffle=True, seed=4)[0] != alone[0]
    assert draws(shuffle=True, seed=4)[1] != alone[1]


def test_no_two_items_draw_the_same() -> None:
    _, numbers = draws(workers=2)
    assert len({tuple(pair) for pair in numbers}) == 12


class Shapes(Numbers):
    """Every third image is upright."""

    @property
    def upright(self) -> np.ndarray:
        return np.arange(self.size) % 3 == 0


@pytest.mark.parametrize("size", [4, 12, 50, 51])
def test_batches_are_of_one_shape_but_for_the_last(size: int) -> None:
    data = loader(Shapes(size), 4, shuffle=True, seed=2)
    epochs = []
    for epoch in range(2):
        data.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        epochs.append([[target["image_id"] for target in targets] for _, targets in data])
    for batches in epochs:
        assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)
        assert sorted(index for batch in batches for index in batch) == list(range(size))
        mixed = [len({index % 3 == 0 for index in batch}) == 2 for batch in batches]
        assert sum(mixed) <= 2
        assert not any(mixed[:-2])
    assert epochs[0] != epochs[1]
    ordered = [target["image_id"] for _, targets in loader(Shapes(size), 4) for target in targets]
    assert ordered == list(range(size))


def test_images_that_are_alike_come_together_in_random_order() -> None:
    first = [
        next(iter(loader(Shapes(48), 4, shuffle=True, seed=seed)))[1][0]["image_id"] % 3 == 0 for seed in range(20)
    ]
    assert 0 < sum(first) < 20


def test_processes_share_batches_of_one_shape() -> None:
    parts = [
        [[target["image_id"] for target in targets] for _, targets in loader(Shapes(48), 4, True, 2, share=(rank, 2))]
        for rank in range(2)
    ]
    whole = [[target["image_id"] for target in targets] for _, targets in loader(Shapes(48), 4, True, 2)]
    assert [sorted(one + other) for one, other in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]


def test_epochs_differ_and_can_be_resumed() -> None:
    data = loader(Numbers(12), 5, shuffle=True, seed=1)
    epochs = []
    for epoch in range(3):
        data.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        epochs.append([target["draw"].tolist() for _, targets in data for target in targets])
    assert epochs[0] != epochs[1] != epochs[2]
    assert draws(shuffle=True, seed=1, epoch=2)[1] == epochs[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_it_stopped(workers: int) -> None:
    data = loader(Numbers(12), 5, shuffle=True, seed=1, workers=workers)

    def drawn(start: int) -> list[list[float]]:
        data.sampler.set_epoch(2, start)  # type: ignore[union-attr]
        return [target["draw"].tolist() for _, targets in data for target in targets]

    assert drawn(5) == drawn(0)[5:]


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(loader(Numbers(4), 2, shuffle=True, seed=1))
    assert torch.equal(torch.rand(1), expected)


def test_augmentation_is_the_same_in_workers(files: CocoFiles) -> None:
    dataset = CocoDataset(files.annotations, files.images, augmentation("strong"), masks=True, train=True)
    for alone, worked in zip(loader(dataset, 2, seed=2), loader(dataset, 2, seed=2, workers=1), strict=True):
        for image, other in zip(alone[0], worked[0], strict=True):
            assert torch.equal(image, other)
        for target, other in zip(alone[1], worked[1], strict=True):
            assert torch.equal(target["boxes"], other["boxes"])
            assert torch.equal(target["masks"], other["masks"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_line_from_workers_too(files: CocoFiles, workers: int) -> None:
    path = files.images / "7.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError) as caught:
        list(loader(CocoDataset(files.annotations, files.images), 2, workers=workers))
    assert str(caught.value).startswith(f"{path}: cannot be decoded")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"batch": 0}, {"batch": 2.0}, {"workers": -1}, {"seed": -1}, {"epoch": -1}])
def test_numbers_out_of_range(options: dict) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ConfigError, match=f"{name} {value} is not a whole number"):
        loader(Numbers(4), **{"batch": 2, **options})


def test_no_images() -> None:
    with pytest.raises(DataError, match="no images"):
        loader(Numbers(0), 2)


def test_processes_share_every_batch() -> None:
    def ids(**options) -> list[list[int]]:
        return [[t["image_id"] for t in targets] for _, targets in loader(Numbers(9), 4, shuffle=True, **options)]

    whole, parts = ids(), [ids(share=(rank, 2)) for rank in (0, 1)]
    assert [batch[0::2] for batch in whole] == parts[0]
    assert [batch[1::2] for batch in whole[:2]] == parts[1][:2]
    assert parts[1][2] == whole[2][:1]  # no image is left for it: the first one again
    assert [len(loader(Numbers(9), 4, share=(rank, 2))) for rank in (0, 1)] == [3, 3]
    with pytest.raises(ConfigError, match="--batch 4 cannot be shared equally by 3 processes; 3 or 6 can"):
        loader(Numbers(9), 4, share=(0, 3))
    with pytest.raises(ConfigError, match="by 8 processes; 8 can"):
        loader(Numbers(9), 4, share=(0, 8))
