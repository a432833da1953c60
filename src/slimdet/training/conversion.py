"""An ordinary detector becomes slimmable: its channels are sorted by importance, every width gets statistics of its
own, and then, in a short training, the untouched detector teaches all widths.

The order is that of "Once-for-All" (arXiv 1908.09791, section 3.3): sorted by importance first, then taught by the
whole network. Here the teacher is the detector as it was, which no step changes.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimdet.bundle import store
from slimdet.bundle.card import Card
from slimdet.core.slimmable import slim
from slimdet.data.transforms import ShrinkInto
from slimdet.files import new_run_dir
from slimdet.models.kinds import kind_of
from slimdet.models.sorting import sort_detector
from slimdet.training.ordinary import read_ordinary
from slimdet.training.own import Own, datasets
from slimdet.training.recipes import by_recipe, task_of
from slimdet.training.runs import SORTING_IMAGES, Training, train
from slimdet.training.settings import CalibrateSettings, TrainSettings
from slimdet.training.statistics import calibration_batches, collect_statistics
from slimdet.training.watching.callbacks import Callback

START, TRAINING = "start", "training"  # in the folder of a conversion
# In place of what the recipe says: the widest is trained already, and is to stay what it is.
TAUGHT: dict[str, Any] = {"teacher": "start", "widest_only": 0.0}
PART = 0.5  # of the recipe's length

logger = logging.getLogger("slimdet")


def make_slimmable(
    source: str | Path,
    data: str | Path,
    *,
    detector: str | None = None,
    widths: Sequence[float] = TrainSettings.widths,
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    **fields: Any,
) -> Training:
    """Make a trained detector slimmable, on images like those that it was trained on.

        make_slimmable("fasterrcnn.pth", "data.yaml", detector="fasterrcnn_resnet50_fpn")

    `out` (by default `runs/convert-N`) gets two folders: `start`, the bundle of the sorted detector, whose width 1.0
    finds what the source finds, and `training`, a run as `slimdet.train` makes it, which can be resumed likewise.

    Args:
        source, detector: the detector, as `slimdet.training.ordinary.read_ordinary` takes it.
        data: DATA.yaml or a folder, with annotations of the classes that the detector finds.
        widths: what it is to have, 1.0 among them.
        out: a new or empty folder.
        callbacks: as `slimdet.train` takes them.
        fields: fields of `TrainSettings`, in place of what `TAUGHT` and the recipe "default" say.

    Raises:
        SlimdetError: a source or data that cannot be used; nothing is written then.
        others: as `slimdet.train`, which can be gone on with.
    """
    ordinary = read_ordinary(source, detector)
    model = "mask_rcnn" if kind_of(ordinary.detector).masks else "faster_rcnn"
    asked: dict[str, Any] = {**TAUGHT, **fields, "data": str(data), "model": model, "widths": widths}
    settings = TrainSettings(**{key: value for key, value in asked.items() if key != "teacher"})
    dataset, _ = datasets(settings, Own())
    plain = ordinary.of_classes(dataset.classes)
    chosen = range(0, len(dataset), math.ceil(len(dataset) / SORTING_IMAGES))
    count = sort_detector(plain, (dataset[index][0] for index in chosen))
    logger.info("sorted the channels of %d groups of layers", count)
    slimmable = slim(plain, settings.widths, settings.scope, norm_sharing=settings.norm_sharing)
    sides: Any = slimmable.twin(1.0).get_submodule("transform")
    dataset.shrink = ShrinkInto(sides.min_size[-1], sides.max_size)
    narrow = [width for width in slimmable.widths if width < 1]
    statistics = CalibrateSettings()
    batches = calibration_batches(dataset, statistics.images, statistics.batch, settings.seed)
    used = collect_statistics(slimmable, narrow, batches)
    logger.info("the narrower widths have statistics of %d images", used)
    folder = new_run_dir("convert", out)
    start = store.save(slimmable, folder / START, Card(dataset.classes, dataset.category_ids, {"source": str(source)}))
    asked["weights"] = str(start)
    task = task_of(replace(settings, weights=str(start)), Own(), dataset)
    whole = by_recipe("default", task, asked)
    if "epochs" not in fields:
        whole = by_recipe("default", task, asked | {"epochs": math.ceil(PART * whole.epochs)})
    return train(whole, out=folder / TRAINING, callbacks=callbacks)
