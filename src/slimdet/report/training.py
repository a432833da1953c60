"""A training as pictures: what it learns from before the first step, curves and detections at the end."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.data.coco import CocoDataset
from slimdet.data.summary import MEDIUM, SMALL, areas, summarize
from slimdet.files import atomic_write
from slimdet.report import plots
from slimdet.training.trainer import Trainer
from slimdet.training.watching.callbacks import Callback
from slimdet.training.watching.log import METRICS, read_rows
from slimdet.training.watching.mosaics import comparison, spread
from slimdet.training.watching.validating import HISTORY

ROWS = 4  # images of a mosaic
SHOWN = 2  # widths of a mosaic: the narrowest and the widest


class RunPictures(Callback):
    """Writes into the run's folder `labels.png` at the start, and at the end `curves.png` and `mosaic.jpg`."""

    def on_start(self, state: Trainer) -> None:
        """Draw classes and sizes of the objects, as large as the widest width sees them."""
        if state.step == 0 and isinstance(state.dataset, CocoDataset):
            transform: Any = state.model.twin(1.0).get_submodule("transform")
            size = (transform.min_size[-1], transform.max_size)
            held = summarize(state.dataset.coco)
            sides = np.sqrt(areas(state.dataset.coco, size))
            plots.plot_labels(held.classes, sides, state.folder / "labels.png", (SMALL, MEDIUM))

    def on_end(self, state: Trainer, model: Path) -> None:
        """Draw losses and accuracies over the epochs, and detections beside what is there."""
        plots.plot_curves(curves(state.folder), state.folder / "curves.png")
        if state.val is not None:
            widths = sorted({state.model.widths[0], state.model.widths[-1]})
            picture = comparison(state.result, spread(state.val, ROWS), widths, state.dataset.classes)
            with atomic_write(state.folder / "mosaic.jpg") as temporary:
                picture.save(temporary, quality=90)


def curves(run: Path) -> dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]]:
    """Losses of a run over its epochs, and AP where it was validated, as `plots.plot_curves` takes them."""
    losses = _by_width(read_rows(run / METRICS), "loss/")
    panels = {"loss": losses}
    for kind, name in plots.KINDS.items():
        if found := _by_width(read_rows(run / HISTORY), f"{kind}/AP/"):
            panels[f"AP of {name}"] = found
    return panels


def _by_width(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    points: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        for key in (key for key in row if key.startswith(prefix) and row[key] > -1):
            epochs, values = points[key.removeprefix(prefix)]
            epochs.append(row["epoch"])
            values.append(row[key])
    return dict(points)
