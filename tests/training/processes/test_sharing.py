"""What each process takes of a step, and that chance and losses do not depend on who computes an image."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scenes_detector import scene_batch, small_settings, tiny_model
from slimdet.data.coco import CocoDataset
from slimdet.evaluation.validation import validate
from slimdet.training.processes.distributed import Place
from slimdet.training.processes.sharing import Samples, Share, validate_shares


def test_every_image_belongs_to_one_process() -> None:
    shares = [Share(Place(rank, 3), 8) for rank in range(3)]
    assert [list(share.own) for share in shares] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert [share.weight for share in shares] == [3 / 8, 3 / 8, 2 / 8]
    idle = Share(Place(2, 3), 2)
    assert (list(idle.own), idle.weight) == ([0], 0)  # repeats the first and counts for nothing


def test_a_step_in_parts_has_every_image_once() -> None:
    images = list("abcdefg")

    def parts(rank: int, world: int, count: int) -> list[tuple[str, list[int], float]]:
        share = Share(Place(rank, world), len(images))
        own: list[Any] = [images[place] for place in share.own]
        return [("".join(map(str, some)), list(it.own), it.weight) for some, _, it in share.split(own, own, count)]

    assert parts(0, 1, 1) == [("abcdefg", list(range(7)), 1)]
    assert parts(0, 1, 3) == [("adg", [0, 3, 6], 3 / 7), ("be", [1, 4], 2 / 7), ("cf", [2, 5], 2 / 7)]
    assert parts(0, 2, 2) == [("ae", [0, 4], 2 / 7), ("cg", [2, 6], 2 / 7)]
    assert parts(1, 2, 2) == [("bf", [1, 5], 2 / 7), ("d", [3], 1 / 7)]
    assert parts(1, 3, 3)[2] == ("b", [0], 0)  # no image is left for the process: it repeats one, which counts nothing
    assert len(parts(0, 1, 9)) == 7


def drawn(share: Share, width: float = 1.0) -> list[list[int]]:
    """The anchors sampled in each of a process's images."""
    model: Any = tiny_model().twin(1.0)
    matched = [torch.zeros(1000, dtype=torch.int64).index_fill(0, torch.arange(200), 1) for _ in share.own]
    with share.sampled(model, width) as samples:
        positive, negative = model.rpn.fg_bg_sampler(matched)
    assert samples.counts["anchors"] == sum(int(one.sum()) for one in positive + negative)
    assert type(model.rpn.fg_bg_sampler).__name__ == "BalancedPositiveNegativeSampler"  # put back
    return [torch.where(one)[0].tolist() for one in positive]


def test_samples_are_the_images_own_whoever_draws_them() -> None:
    whole = drawn(Share(Place(), 4, seed=7, step=3))
    torch.rand(5)  # whatever else was random
    parts = [drawn(Share(Place(rank, 2), 4, seed=7, step=3)) for rank in (0, 1)]
    assert [whole[0], whole[2]] == parts[0]
    assert [whole[1], whole[3]] == parts[1]
    others = [
        drawn(Share(Place(), 4, seed=7, step=4)),
        drawn(Share(Place(), 4, seed=8, step=3)),
        drawn(Share(Place(), 4, seed=7, step=3), width=0.5),
    ]
    assert all(one != whole for one in others)
    assert whole[0] != whole[1]


def test_drawing_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    drawn_state = []
    model: Any = tiny_model().twin(1.0)
    torch.set_rng_state(before)
    with Share(Place(), 1, seed=1).sampled(model):
        model.rpn.fg_bg_sampler([torch.zeros(1000, dtype=torch.int64)])
        drawn_state.append(torch.get_rng_state())
    assert torch.equal(drawn_state[0], before)


class Others(Place):
    """A process whose sums come from a second one that has drawn 30 samples of each kind."""

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor.add_(30)


def test_losses_count_by_what_they_are_means_over() -> None:
    losses = {name: torch.tensor(1.0) for name in ("loss_objectness", "loss_mask", "distill_classes", "own_loss")}
    counts = {"anchors": torch.tensor(10), "proposals": torch.tensor(20), "positives": torch.tensor(0)}
    counts |= Samples({"proposals": torch.tensor(90)}).taught()
    weights = Share(Others(0, 2), 4, seed=0).weights(losses, counts)
    assert {name: round(float(weight), 6) for name, weight in weights.items()} == {
        "loss_objectness": 0.25,  # 10 of 40
        "loss_mask": 0,  # 0 of 30
        "distill_classes": 0.75,  # 90 of 120
        "own_loss": 0.5,  # 2 of 4 images
    }
    of_two_parts = Share(Others(0, 2), 4, seed=0, part=1, parts=2).weights(losses, counts)
    assert float(of_two_parts["loss_objectness"]) == 0.125  # 10 of 40, of half the images
    alone = Share(Place(), 4, seed=0).weights(losses, counts)
    assert set(alone.values()) == {1.0}


def test_a_detectors_losses_are_named_in_the_table() -> None:
    images, targets = scene_batch()
    model: Any = tiny_model().train()
    share = Share(Place(), len(images), seed=0)
    with share.sampled(model.twin(1.0)) as samples:
        losses = model(images, targets, width=1.0)
    assert samples.counts.keys() == {"anchors", "proposals", "positives"}
    assert samples.counts["anchors"] == 2 * 128  # of the light neck, an image
    weights = Share(Others(0, 2), 4, seed=0).weights(losses, samples.counts)
    assert all(isinstance(weight, Tensor) for weight in weights.values())  # none is taken for a mean over images


class Gathering(Place):
    """The first of two processes; what the second found is given."""

    def __init__(self, found: list[Any]) -> None:
        super().__init__(0, 2)
        object.__setattr__(self, "found", found)

    def gather(self, value: Any) -> list[Any]:
        return [value, self.__dict__["found"].pop(0)]


class Keeping(Place):
    """The second of two processes, which keeps what it would send."""

    def gather(self, value: Any) -> list[Any]:
        self.__dict__.setdefault("sent", []).append(value)
        return [[], value]


def test_shares_give_the_numbers_of_the_whole(scenes: Path, trained: Path) -> None:
    import slimdet

    model = slimdet.load(trained / "model")
    folder = Path(small_settings(scenes).data).parent
    dataset = CocoDataset(folder / "annotations.json", folder / "images")
    whole = validate(model, dataset, model.widths, "cpu").widths
    second, device = Keeping(1, 2), torch.device("cpu")
    validate_shares(model, dataset, dataset.classes, device, second)
    first = Gathering(second.__dict__["sent"])
    assert validate_shares(model, dataset, dataset.classes, device, first) == whole
    assert any(value > 0 for value in whole["1.0"]["bbox"].values()), "nothing was found, so nothing was compared"
    assert validate_shares(model, dataset, dataset.classes, device, Place()) == whole
