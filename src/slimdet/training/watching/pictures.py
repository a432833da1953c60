"""Pictures of the data as a training sees it."""

import itertools
from typing import TYPE_CHECKING

from slimdet.data.loader import loader
from slimdet.files import atomic_write
from slimdet.training.watching.callbacks import Callback
from slimdet.training.watching.mosaics import batch_mosaic

if TYPE_CHECKING:
    from slimdet.training.trainer import Trainer

BATCHES = 2  # pictures of the first batches


class DataPictures(Callback):
    """Writes `batch-1.jpg` and `batch-2.jpg` before the first step: its first batches, augmented, with their labels."""

    def on_start(self, state: "Trainer") -> None:
        """Draw the batches; a resumed run has them already."""
        files = [state.folder / f"batch-{number}.jpg" for number in range(1, BATCHES + 1)]
        if state.step or any(file.exists() for file in files):
            return
        batches = loader(state.seen, state.settings.batch, shuffle=True, seed=state.settings.seed)
        for file, (images, targets) in zip(files, itertools.islice(batches, BATCHES), strict=False):
            with atomic_write(file) as temporary:
                batch_mosaic(images, targets, state.dataset.classes).save(temporary, quality=90)
