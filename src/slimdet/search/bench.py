"""Plans of a model tried one after another: no weight changes, each gets statistics of its own and is measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.data.loader import Batch
from slimdet.data.transforms import ShrinkInto
from slimdet.evaluation.inference import detect
from slimdet.evaluation.points import part_of
from slimdet.evaluation.resampling import Matches
from slimdet.search.plans import Plan
from slimdet.search.settings import SearchSettings
from slimdet.training.settings import CalibrateSettings
from slimdet.training.statistics import calibration_batches, collect_statistics


class Bench:
    """Tries plans of a model, one after another; each gets its own statistics first.

    Args:
        model: of which the widths are; no weight changes.
        parts: the names of each stage's layers.
        train, val: for statistics, and to measure on.
        settings: how many images of each.
    """

    NAME = 0.9999  # of the plan that is being tried

    def __init__(
        self,
        model: Slimmable,
        parts: Sequence[Sequence[str]],
        train: CocoDataset,
        val: CocoDataset,
        settings: SearchSettings,
    ) -> None:
        self.model, self.train, self.val, self._parts, self._seed = model, train, val, parts, settings.seed
        sides: Any = model.twin(1.0).get_submodule("transform")
        train.shrink = ShrinkInto(sides.min_size[-1], sides.max_size)
        self._few = list(self._batches(settings.statistics))
        order = np.random.default_rng(settings.seed).permutation(len(val))
        self._some = sorted(order[: settings.images].tolist())

    def names(self, plan: Plan) -> dict[str, float]:
        """The plan as `Slimmable.add` takes it."""
        return {name: width for names, width in zip(self._parts, plan, strict=True) for name in names}

    def ap(self, plan: Plan) -> float:
        """AP on the part of val."""
        self.model.add(self.NAME, self.names(plan))
        collect_statistics(self.model, [self.NAME], self._few)
        return ap_of(self._matches(self._some))

    def matches(self, plan: Plan) -> Matches:
        """What is found in all of val, with statistics of many images."""
        self.model.add(self.NAME, self.names(plan))
        self.calibrate(self.model, self.NAME)
        return self._matches(range(len(self.val)))

    def _matches(self, places: Sequence[int]) -> Matches:
        self.model.eval()
        found = detect(lambda images: self.model(images, width=self.NAME), _Part(self.val, places))
        return Matches(part_of(self.val, places), found)

    def calibrate(self, model: Slimmable, width: float) -> dict[str, Any]:
        """Give a width its statistics; how, as a card holds it."""
        usual = CalibrateSettings()
        used = collect_statistics(model, [width], self._batches(usual.images))
        return {"images": used, "batch": usual.batch, "seed": self._seed}

    def _batches(self, images: int) -> Iterator[Batch]:
        return calibration_batches(self.train, images, CalibrateSettings.batch, self._seed)


@dataclass(frozen=True)
class _Part:
    """The images at some places of a data set."""

    whole: CocoDataset
    places: Sequence[int]

    @property
    def classes(self) -> Sequence[str]:
        return self.whole.classes

    @property
    def category_ids(self) -> Sequence[int]:
        return self.whole.category_ids

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        return self.whole[self.places[index]]


def ap_of(matches: Matches) -> float:
    return float(matches.ap(np.ones((1, matches.images)))[0])
