"""A slimmable detector that runs: images in, results out, at any width, on any engine.

Legend: B images, N detections, H x W pixels.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slimdet.bundle import manifest
from slimdet.images.decoding import ImageSource, check_resizable, read_image
from slimdet.models.kinds import require
from slimdet.runtime.engine import Engine, Found, Session
from slimdet.runtime.engines import choose, make
from slimdet.runtime.footprint import footprint
from slimdet.runtime.result import Result


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image: pixels uint8 [H, W, 3] (RGB), its file if it came from one, milliseconds it took."""

    pixels: NDArray[np.uint8]
    path: Path | None
    read_ms: float


class Runtime:
    """Runs a bundle's detector at any of its widths. It needs no torch (unless the engine is torch).

    One object may be used by several threads, at several widths at once.

    Args:
        model: a bundle's folder, or "bundled".
        width: the width that runs where a call names none.
        engine: "onnxruntime", "openvino", "torch", or "auto": onnxruntime where the bundle was exported, else torch.
        conf: least score of a detection, 0..1. Exported engines keep none below the threshold that the detector was
            exported with, torchvision's 0.05 unless it was changed.
        device: "auto", "cpu", "cuda", "cuda:N", "mps" (also "coreml"), as far as the engine has it.
        threads: for one run; by default the engine's own choice, which is about one for each core.
        imgsz: shorter side that images are resized to, in pixels; the torch engine alone can change it.

    Attributes:
        widths: all widths, ascending; the last is 1.0.
        classes: names of the labels 1..K.
        category_ids: ids of the labels in the data set's annotations.

    Raises:
        BundleError: the folder is no bundle, or has no engine files for this engine.
        ConfigError: the engine or device is not to be had here, or the detector gives more than boxes and masks.
        WidthError: the bundle does not have the width.
    """

    def __init__(
        self,
        model: str | Path = "bundled",
        width: float = 1.0,
        engine: str = "auto",
        conf: float = 0.25,
        device: str = "auto",
        threads: int | None = None,
        imgsz: int | None = None,
    ) -> None:
        self.manifest = manifest.read(model)
        require(self.manifest.architecture, "run", self.manifest.name)
        self.width, self.conf = self.manifest.check_width(width), conf
        self.widths, self.classes = self.manifest.widths, self.manifest.classes
        self.category_ids = self.manifest.category_ids
        self._settings = {"device": device, "threads": threads, "conf": conf, "imgsz": imgsz}
        self.engine: Engine = make(choose(engine, self.manifest), self.manifest, **self._settings)
        self._sessions: dict[float, Session] = {}
        self._loading = threading.Lock()

    def prepare(self, widths: Iterable[float] | None = None) -> "Runtime":
        """Make widths (by default all) ready, so that no later call waits for loading; returns itself.

        Raises:
            BundleError, WidthError: as for `Runtime`.
        """
        for width in self.widths if widths is None else widths:
            self.session(width)
        return self

    @overload
    def __call__(self, source: ImageSource, width: float | None = None, batch: int = 8) -> Result: ...
    @overload
    def __call__(self, source: Sequence[ImageSource], width: float | None = None, batch: int = 8) -> list[Result]: ...
    def __call__(
        self, source: ImageSource | Sequence[ImageSource], width: float | None = None, batch: int = 8
    ) -> Result | list[Result]:
        """Detect objects.

        Args:
            source: a path, the bytes of an image file, a Pillow image, or an RGB array uint8 [H, W, 3] (and what else
                `slimdet.images.decoding.read_image` takes); or a list or tuple of these.
            width: the width to run at.
            batch: images of a list that run together, where they have one size.

        Returns:
            A result, or as many as there are sources.

        Raises:
            ImageError: an image that cannot be decoded, or that nothing is left of at the detector's size.
            BundleError, WidthError: as for `Runtime`.
        """
        if not isinstance(source, list | tuple):
            return self.detect([self.read(cast(ImageSource, source), width)], width)[0]
        results: list[Result] = []
        for start in range(0, len(source), batch):
            results += self.detect([self.read(one, width) for one in source[start : start + batch]], width)
        return results

    def read(self, source: ImageSource, width: float | None = None) -> Picture:
        """Decode an image, and make sure that the detector can take it.

        Raises:
            BundleError, ImageError, WidthError: as for a call.
        """
        longest = self.session(self.width if width is None else width).sides[1]
        start = time.perf_counter()
        pixels = read_image(source)
        path = Path(source) if isinstance(source, str | Path) else None
        if isinstance(source, Image.Image) and getattr(source, "filename", ""):
            path = Path(source.filename)  # pyright: ignore[reportAttributeAccessIssue]  # of opened files only
        check_resizable(f"{path}: " if path else "", pixels.shape[1], pixels.shape[0], longest)
        return Picture(pixels, path, 1000 * (time.perf_counter() - start))

    def detect(self, pictures: Sequence[Picture], width: float | None = None) -> list[Result]:
        """Detect objects in decoded images; all of one size run together.

        Raises:
            BundleError, WidthError: as for `Runtime`.
        """
        width = self.width if width is None else self.manifest.check_width(width)
        session = self.session(width)
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, picture in enumerate(pictures):
            by_size.setdefault(picture.pixels.shape, []).append(index)
        results: dict[int, Result] = {}
        for places in by_size.values():
            start = time.perf_counter()
            found = session(np.stack([pictures[place].pixels for place in places]))
            elapsed = 1000 * (time.perf_counter() - start) / len(places)
            for index, place in enumerate(places):
                results[place] = self._result(found, index, pictures[place], width, elapsed)
        return [results[place] for place in range(len(pictures))]

    def session(self, width: float) -> Session:
        """The engine at one width; loaded once, when it is first asked for.

        Raises:
            BundleError, WidthError: as for `Runtime`.
        """
        width = self.manifest.check_width(width)
        with self._loading:
            if width not in self._sessions:
                self._sessions[width] = self.engine.load(width)
            return self._sessions[width]

    def footprint(self) -> dict[str, dict[str, int]]:
        """Bytes on disk and in memory of every width, and of all widths in one process.

        See `slimdet.runtime.footprint`: it starts a process for each.
        """
        settings = self._settings | {"name": self.engine.name, "bundle": self.manifest.name}
        return footprint(settings, {width: self.engine.files(width) for width in self.widths})

    def _result(self, found: Found, index: int, picture: Picture, width: float, elapsed: float) -> Result:
        kept = (found.image_index == index) & (found.scores >= self.conf)
        labels = found.labels[kept]
        return Result(
            boxes=found.boxes[kept],
            labels=labels,
            scores=found.scores[kept],
            names=[self.classes[label - 1] for label in labels.tolist()],
            width=width,
            speed={"read_ms": picture.read_ms, "inference_ms": elapsed},
            image=picture.pixels,
            path=picture.path,
            classes=self.classes,
            category_ids=self.category_ids,
            mask_cells=None if found.masks is None else found.masks[kept],
        )
