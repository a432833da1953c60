"""How long widths of stages take here: each plan is exported as it would ship, and runs on the engine."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from slimdet.bundle import card, store
from slimdet.data.coco import CocoDataset
from slimdet.exporting.engine_files import export
from slimdet.exporting.settings import ExportSettings
from slimdet.runtime.detector import Runtime
from slimdet.runtime.latency import latencies
from slimdet.search.settings import SearchSettings
from slimdet.search.trials import Told

TOGETHER = 8  # plans that take turns; all at once would fill the memory
PICTURES = 4  # images that are timed, in turn
FULL = 1.0


class Stopwatch:
    """Times plans of a bundle; weights and statistics do not matter for that.

    Args:
        model: the bundle.
        dataset: whose first images are timed.
        settings: engine, device, threads, repeats.
        folder: for the bundles that are made on the way; it goes again.
    """

    def __init__(self, model: str | Path, dataset: CocoDataset, settings: SearchSettings, folder: Path) -> None:
        self._model, self._settings, self._folder = model, settings, folder
        self._files = [dataset.file(place) for place in range(min(PICTURES, len(dataset)))]

    def times_less(self, plans: Sequence[Mapping[str, float]], progress: Told | None = None) -> list[float]:
        """What part of the time of width 1.0 each plan takes: medians of runs that took turns."""
        found: list[float] = []
        waiting = iter(plans)
        while some := list(islice(waiting, TOGETHER)):
            *ms, full = self._measured(some)
            found += [one / full for one in ms]
            if progress:
                progress("timing plans", len(found), len(plans))
        return found

    def full_ms(self) -> float:
        """Milliseconds of an image at width 1.0."""
        return self._measured([])[0]

    def _measured(self, plans: Sequence[Mapping[str, float]]) -> list[float]:
        """Median milliseconds of each plan, and of width 1.0."""
        settings, slimmable = self._settings, store.load(self._model)
        free = (number / 10_000 for number in range(9_999, 0, -1) if number / 10_000 not in slimmable.widths)
        widths = list(islice(free, len(plans)))
        for width, plan in zip(widths, plans, strict=True):
            slimmable.add(width, plan)
            slimmable.borrowed.discard(width)  # whatever its statistics are, it takes as long
        try:
            bundle = store.save(slimmable, self._folder, card.read(self._model))
            form = "openvino" if settings.engine == "openvino" else "onnx"
            if settings.engine != "torch":
                for width in (*widths, FULL):
                    export(bundle, ExportSettings(width, form))
            runtime = Runtime(bundle, engine=settings.engine, device=settings.device, threads=settings.threads)
            pictures = [runtime.read(file).pixels for file in self._files]
            calls = {}
            for width in (*widths, FULL):
                turn = cycle(pictures)
                calls[width] = partial(lambda width, turn: runtime(next(turn), width=width), width, turn)
            runs = latencies(calls, settings.repeats, warm=len(pictures))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return [median(runs[width]) for width in (*widths, FULL)]
