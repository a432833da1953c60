"""A step's images shared among processes, so that N processes compute what one would with the whole batch.

Two things in torchvision's detectors make a batch more than the sum of its images. Samples are drawn from one
generator, image after image: here every image draws by a seed of its own. Losses are divided by the number of samples
of the whole batch: here each process's loss counts by its part of the samples of all.

What stays different between one process and several: batch norms normalise by the process's own images; images of
unequal size are padded to the largest of the process; what the widest's features teach ("features") is standardised
over the process's own images. Frozen norms and norms in groups do not look at other images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.evaluation.inference import check_classes, detect
from slimdet.evaluation.matching import accumulate
from slimdet.training.processes.distributed import Place

# What each loss of Faster and Mask R-CNN is a mean over. Losses that are not named are means over images.
_MEAN_OVER = {
    "loss_objectness": "anchors",
    "loss_rpn_box_reg": "anchors",
    "loss_classifier": "proposals",
    "loss_box_reg": "proposals",
    "loss_mask": "positives",
    "distill_classes": "taught proposals",
    "distill_masks": "taught positives",
}


@dataclass
class Samples:
    """How many anchors and proposals were sampled in a forward pass, and how many of the proposals show an object."""

    counts: dict[str, Tensor] = field(default_factory=dict)

    def taught(self) -> dict[str, Tensor]:
        """The counts under the names that what this pass teaches is a mean over."""
        return {f"taught {name}": count for name, count in self.counts.items()}


@dataclass(frozen=True)
class Share:
    """The images of a step that this process has.

    Every `world`-th image of the step is this process's, from `rank` on. Where there are fewer images than processes,
    one without an image repeats the first and counts for nothing.

    Attributes:
        place: this process among all.
        images: of the whole step.
        seed: the training's; None leaves the samples to torch's generator.
        step: its number.
        part, parts: of a step in several parts, one after another: which part of the process's images these are.
    """

    place: Place
    images: int
    seed: int | None = None
    step: int = 0
    part: int = 0
    parts: int = 1

    def of(self, rank: int) -> range:
        """The places in the step of a process's images."""
        return range(rank + self.part * self.place.world, self.images, self.parts * self.place.world)

    @property
    def own(self) -> range:
        """The places in the step of this process's images."""
        return self.of(self.place.rank) or range(1)

    @property
    def weight(self) -> float:
        """This process's part of the step's images, 0..1."""
        return len(self.of(self.place.rank)) / self.images

    def split(
        self, images: list[Tensor], targets: list[Any], parts: int
    ) -> Iterator[tuple[list[Tensor], list[Any], "Share"]]:
        """The images and targets of this process in several parts, each with its share of the step.

        Processes have the same number of parts; one without an image for a part repeats its first.
        """
        for part in range(parts):
            share = replace(self, part=part, parts=parts)
            if share.of(0):
                chosen = slice(part, None, parts) if share.of(self.place.rank) else slice(1)
                yield images[chosen], targets[chosen], share

    @contextmanager
    def sampled(self, detector: nn.Module, width: float = 1.0) -> Iterator[Samples]:
        """Let each image of the forward passes within the block draw its samples by a seed of its own, and count."""
        samples, seed = Samples(), self.seed
        owners = {"anchors": getattr(detector, "rpn", None), "proposals": getattr(detector, "roi_heads", None)}
        found: dict[str, Any] = {name: one for name, one in owners.items() if hasattr(one, "fg_bg_sampler")}
        before = {name: one.fg_bg_sampler for name, one in found.items()}
        if seed is not None:
            seeds = [np.random.SeedSequence((seed, self.step, place, round(10_000 * width))) for place in self.own]
            for name, one in found.items():
                one.fg_bg_sampler = _by_image(before[name], name, seeds, samples)
        try:
            yield samples
        finally:
            for name, one in found.items():
                one.fg_bg_sampler = before[name]

    def weights(self, losses: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> dict[str, Tensor | float]:
        """By what each loss of this process is multiplied, so that the sum over processes is the whole batch's loss.

        Args:
            losses: by name.
            counts: of this process's samples, as `Samples` has them.
        """
        weights: dict[str, Tensor | float] = dict.fromkeys(losses, self.weight)
        if self.place.world == 1 or not counts:
            return weights
        own = torch.stack([count.double() for count in counts.values()]) * (self.weight > 0)
        of_step = sum(len(self.of(rank)) for rank in range(self.place.world)) / self.images
        part = dict(zip(counts, (of_step * own / self.place.sum(own.clone()).clamp_min(1)).float(), strict=True))
        return weights | {name: part[_MEAN_OVER[name]] for name in losses if _MEAN_OVER.get(name) in part}


def _by_image(
    sampler: Callable[..., Any], name: str, seeds: Sequence[np.random.SeedSequence], samples: Samples
) -> Callable[..., Any]:
    """torchvision's sampler, called with one image after another, each with its seed; counts what it draws."""

    def sample(matched: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        positive, negative = [], []
        for one, seed in zip(matched, seeds, strict=True):
            with _seeded(int(seed.generate_state(1, np.uint64)[0]), one.device):
                drawn = sampler([one])
            positive += drawn[0]
            negative += drawn[1]
        objects = torch.stack([one.sum() for one in positive]).sum()
        samples.counts[name] = objects + torch.stack([one.sum() for one in negative]).sum()
        if name == "proposals":
            samples.counts["positives"] = objects
        return positive, negative

    return sample


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators start from a seed within the block; afterwards they are where they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def validate_shares(
    model: Slimmable, dataset: CocoDataset, classes: Sequence[str], device: torch.device, place: Place
) -> dict[str, dict[str, dict[str, float]]]:
    """Evaluate every width of a model, each process on its share of the images; the numbers are those of one process.

    Args:
        model: the same in every process; is set to eval mode.
        dataset: the same in every process.
        classes: [K], names of the model's labels 1..K.

    Returns:
        {width: {"bbox": the 12 COCO numbers, "segm": ...}}, in every process.

    Raises:
        DataError: as `slimdet.evaluation.validation.measure`.
    """
    model.eval()
    ids = check_classes(classes, dataset)
    share = _Part(dataset, place)
    order = {number: rank for rank, number in enumerate(dataset.image_ids)}
    kinds = ("bbox", "segm") if dataset.masks else ("bbox",)
    numbers = {}
    for width in model.widths:
        own = detect(lambda images, width=width: model(images, width=width), share, device, category_ids=ids)
        found = chain.from_iterable(place.gather(own))
        # The images' order decides between equal scores.
        found = sorted(found, key=lambda one: order[one["image_id"]])
        evaluations = accumulate(dataset.coco, found, kinds)
        numbers[str(width)] = {kind: evaluation.summary() for kind, evaluation in evaluations.items()}
    return numbers


class _Part:
    """Every `world`-th image of a data set, from `rank` on."""

    def __init__(self, dataset: CocoDataset, place: Place) -> None:
        self.dataset, self.places = dataset, range(place.rank, len(dataset), place.world)
        self.classes, self.category_ids = dataset.classes, dataset.category_ids

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        return self.dataset[self.places[index]]
