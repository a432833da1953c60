"""What one process of a job does: blocks of images in, part files out."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimdet.errors import ImageError
from slimdet.jobs import parts
from slimdet.jobs.listing import Block
from slimdet.jobs.pace import Pace
from slimdet.jobs.settings import JobSettings
from slimdet.runtime.budget import accuracies, costs
from slimdet.runtime.prediction import batches, opened

if TYPE_CHECKING:
    from slimdet.bundle.ladder import Point

TRIES = 3  # of a block, before it is given up: a picture that ends the process would stop the job otherwise


class Worker:
    """Detects objects block by block.

    Args:
        model, settings: as for `slimdet.jobs.detect`.
        folder: where the parts go.
    """

    def __init__(self, model: str | Path, settings: JobSettings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._runtime = opened(model, settings)
        if settings.deadline is None:
            self._points = [self._runtime.complete(settings.point)]
            self._pace = None
        else:
            measured = costs(self._runtime)
            self._points, self._pace = list(measured), Pace(list(measured.values()))
        self._ap = accuracies(self._runtime, self._points)

    def __call__(self, block: Block) -> None:
        """Write the block's part, unless it is there.

        Raises:
            OSError: the disk is full.
        """
        part, started = self._folder / block.part, self._folder / f"{parts.STARTED}{block.part}"
        if part.exists():
            return
        with started.open("ab") as handle:
            handle.write(b".")
        if started.stat().st_size > TRIES:
            error = ImageError(f"{TRIES} workers ended while they looked at its block of {len(block.files)} images")
            parts.write(part, [parts.line(file, error, None) for file in block.files])
        else:
            parts.write(part, self._lines(block))
        started.unlink(missing_ok=True)

    def _lines(self, block: Block) -> Iterator[dict[str, Any]]:
        rung, done = 0, 0

        def choose() -> "Point":
            nonlocal rung
            rung = self._rung(block, done)
            return self._points[rung]

        began = time.monotonic()
        files = [Path(file) for file in block.files]
        with closing(batches(self._runtime, files, self._settings.batch, choose)) as coming:
            for found in coming:
                for one in found:
                    ap = None if isinstance(one, ImageError) else self._ap.get(one.point)
                    yield parts.line(block.files[done], one, ap)
                    done += 1
                if self._pace is not None:
                    now = time.monotonic()
                    self._pace.observe(rung, 1000 * (now - began) / len(found))
                    began = now

    def _rung(self, block: Block, done: int) -> int:
        deadline = self._settings.deadline
        if self._pace is None or deadline is None:
            return 0
        images = len(block.files) - done + (block.rounds - 1) * self._settings.block
        return self._pace.choose(images, deadline.timestamp() - time.time())
