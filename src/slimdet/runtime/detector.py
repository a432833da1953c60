"""A slimmable detector that runs: images in, results out, at any width, on any engine.

Legend: B images, N detections, H x W pixels.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from slimdet.bundle import manifest
from slimdet.bundle.ladder import Point, Precision
from slimdet.errors import BundleError, ConfigError, WidthError
from slimdet.images.resizing import Sides, Size
from slimdet.images.sides import scaled_sides
from slimdet.runtime import preprocessing
from slimdet.runtime.budget import Budget, held
from slimdet.runtime.engine import CONF, EngineName, EngineSettings, Found, Memory, Session
from slimdet.runtime.pipeline import in_order
from slimdet.runtime.preprocessing import Color, DecodedImage, Source
from slimdet.runtime.result import Classes, Result, check_conf, labels_of
from slimdet.runtime.sessions import Sessions

TOGETHER = 2**21  # pixels that an engine is given at once, or one image: memory, and no faster with more


class _EngineOptions(TypedDict, total=False):
    device: str
    threads: int | None
    imgsz: int | None
    proposals: int | None
    precision: Precision | None
    memory: Memory


class _Detection(TypedDict, total=False):
    conf: float | None
    classes: Classes | None
    imgsz: int | None
    proposals: int | None
    point: Point | int | None


class _Options(_Detection, total=False):
    color: Color
    batch: int | None


@dataclass(frozen=True)
class _Call:
    """What one call runs and what it keeps, all of it checked."""

    point: Point  # nothing left open, but the proposals of a detector that has none
    session: Session
    sides: Sides
    conf: float
    labels: Sequence[int] | None  # None: all
    held: bool = False  # the point is only the last one: the budget chooses


class Runtime:
    """Runs a bundle's detector at any of its widths. It needs no torch (unless the engine is torch).

    One object may be used by several threads, at several widths at once.

    Args:
        model: a bundle's folder, or "bundled".
        width: the width that runs where a call names none.
        engine: "onnxruntime", "openvino", "torch", or "auto": the one that `slimdet profile --save` found the quickest
            here, on as many threads as each width does best on, else onnxruntime where the bundle was exported, else
            torch.
        budget_ms: milliseconds for an image, from its file to its boxes, in which 95 of 100 calls end. Where a call
            names nothing, the point is chosen that finds most of those that are expected to be in time, call by call:
            of the ladder, or of the widths where the bundle has no ladder. Under load from outside it narrows. What
            `slimdet tune` did not time on this machine is timed at the start.
        conf: least score of a detection where a call names none, 0..1. Exported engines have the threshold that the
            detector was exported with (torchvision's 0.05 unless it was changed), and less is refused; torch goes to 0.
        options: `device`, `threads`, `imgsz`, `proposals`, `precision` and `memory`, as
            `slimdet.runtime.engine.EngineSettings` has them.

    Attributes:
        widths: all widths, ascending; the last is 1.0.
        classes: names of the labels 1..K.
        category_ids: ids of the labels in the data set's annotations.
        ladder: the bundle's rungs (`slimdet.bundle.ladder.Rung`), cheapest first; empty where none were measured.
        options: the engine's settings, with nothing left to "auto" but the device.
        threads: of one run, as given.
        budget: what holds `budget_ms` (`slimdet.runtime.budget.Budget`); None without one.

    Raises:
        BundleError: the folder is no bundle, or has no engine files for this engine.
        ConfigError: the engine or device is not to be had here, `conf` or `budget_ms` cannot be, this engine runs no
            point of the ladder that a budget is held with, or the kind of detector has more than boxes and masks
            (keypoints), which would be lost.
        WidthError: the bundle does not have the width.
    """

    def __init__(
        self,
        model: str | Path = "bundled",
        width: float = 1.0,
        engine: EngineName = EngineSettings.engine,
        conf: float = CONF,
        budget_ms: float | None = None,
        **options: Unpack[_EngineOptions],
    ) -> None:
        self.manifest = manifest.read(model)
        self.width = self.manifest.check_width(width)
        self.widths, self.classes = self.manifest.widths, self.manifest.classes
        self.category_ids, self.ladder = self.manifest.category_ids, self.manifest.ladder
        self._sessions = Sessions(self.manifest, EngineSettings(engine, **options))
        self.engine, self.options = self._sessions.engine, self._sessions.options
        self.conf = self._check_conf(conf)
        self.threads = self.options.threads
        self.budget: Budget | None = None
        if budget_ms is not None:
            self.budget = held(self, budget_ms)

    @property
    def point(self) -> Point | None:
        """What runs where a call names nothing; None is `width` with all else the model's.

        With a budget, what the last call was chosen to run at.
        """
        return None if self.budget is None else self.budget.point

    def prepare(self, widths: Iterable[float] | None = None) -> "Runtime":
        """Make widths (by default all) ready, so that no later call waits for loading; returns itself.

        Raises:
            BundleError, WidthError: as for `Runtime`.
        """
        for width in self.widths if widths is None else widths:
            self.session(width)
        return self

    @overload
    def __call__(self, source: Source, width: float | None = None, **options: Unpack[_Options]) -> Result: ...
    @overload
    def __call__(
        self,
        source: Source | Iterable[Source],
        width: float | None = None,
        *,
        stream: Literal[True],
        **options: Unpack[_Options],
    ) -> Iterator[Result]: ...
    @overload
    def __call__(
        self, source: Iterable[Source], width: float | None = None, **options: Unpack[_Options]
    ) -> list[Result]: ...
    def __call__(
        self,
        source: Source | Iterable[Source],
        width: float | None = None,
        *,
        color: Color = "rgb",
        batch: int | None = None,
        stream: bool = False,
        **options: Unpack[_Detection],
    ) -> Result | list[Result] | Iterator[Result]:
        """Detect objects.

        Args:
            source: a path, the bytes of an image file, a file object open in binary mode, a Pillow image, an RGB array
                uint8 [H, W, 3] (and what else `slimdet.images.decoding.read_image` takes), or a torch tensor [3, H, W]
                on any device, uint8 or floats in 0..1; or any iterable of these, such as a list.
            width: the width to run at; the default is the runtime's, as for `conf`.
            conf: least score of a detection, 0..1.
            classes: names of classes or their labels 1..K, one or several, to which the detections are limited.
            imgsz: shorter side in pixels that images are resized to; the longer is capped in the model's ratio.
            proposals: boxes that the second stage looks at; fewer are faster.
            point: all of this at once, a `slimdet.bundle.ladder.Point`, or the place of one in `ladder` (0 is the
                cheapest); it stands in for `width`, `imgsz` and `proposals`.
            color: order of the channels in arrays and tensors: "bgr" for OpenCV's.
            batch: images that are taken at a time; those that have one size once they are resized run together. By
                default 8, of a stream 1.
            stream: give the results one by one, as they are asked for. No more than one batch of images is held then,
                so that the source may be as long as it likes. Of a list or another sequence the next batch is read
                meanwhile; of any other iterable, which may be waiting for its images, none is taken before its time.

        Returns:
            A result, or as many as there are sources, in their order: a list, or of a stream an iterator.

        Raises:
            ImageError: an image that cannot be decoded, or that nothing is left of at the detector's size.
            ConfigError: `conf`, `classes`, `imgsz`, `proposals`, `point`, `color` or `batch` cannot be.
            BundleError, WidthError: as for `Runtime`.
        """
        call = self._check(width, **options)
        one = preprocessing.is_one(source)
        size = (1 if stream else 8) if batch is None else batch
        if size < 1:
            raise ConfigError(f"batch {size} must be 1 or more")
        sources: Any = [source] if one else source
        waits = one or (stream and not isinstance(source, Sequence))
        results = self._results(sources, call, color, (size, 0 if waits else size))
        return results if stream else next(results) if one else list(results)

    def read(
        self, source: Source, width: float | None = None, color: Color = "rgb", imgsz: int | None = None
    ) -> DecodedImage:
        """Decode an image, and make sure that the detector can take it.

        Raises:
            BundleError, ConfigError, ImageError, WidthError: as for a call.
        """
        return preprocessing.read(source, self._check(width, imgsz=imgsz).sides, color)

    def detect(
        self, images: Sequence[DecodedImage], width: float | None = None, **options: Unpack[_Detection]
    ) -> list[Result]:
        """Detect objects in decoded images; those that have one size once they are resized run together.

        `options` are those of a call.

        Raises:
            BundleError, ConfigError, WidthError: as for a call.
        """
        return self._detect(images, self._check(width, **options))

    def session(self, width: float | None = None) -> Session:
        """The engine at one width; loaded once, when it is first asked for.

        Raises:
            BundleError, WidthError: as for `Runtime`.
        """
        return self._sessions.get(self.width if width is None else self.manifest.check_width(width))

    def complete(self, point: Point) -> Point:
        """The point with nothing left open: what runs where it is asked for.

        Raises:
            BundleError, ConfigError, WidthError: as for a call.
        """
        return self._check(None, point=point).point

    def sides(self, point: Point) -> Sides:
        """What images are resized to at a point.

        Raises:
            BundleError, ConfigError, WidthError: as for a call.
        """
        return self._check(None, point=point).sides

    def has(self, point: Point) -> bool:
        """Whether the bundle and the engine have this point."""
        try:
            return self.complete(point) is not None
        except (BundleError, ConfigError, WidthError):
            return False

    def _check(
        self,
        width: float | None,
        *,
        conf: float | None = None,
        classes: Classes | None = None,
        imgsz: int | None = None,
        proposals: int | None = None,
        point: Point | int | None = None,
    ) -> _Call:
        free = self.budget is not None and (width, imgsz, proposals, point) == (None,) * 4
        point = self.point if free else point
        if point is None:
            wanted = Point(self.width if width is None else self.manifest.check_width(width), imgsz, proposals)
        elif (width, imgsz, proposals) == (None, None, None):
            wanted = self._rung(point) if isinstance(point, int) else point
            self.manifest.check_width(wanted.width)
        else:
            raise ConfigError("point says width, imgsz and proposals: give it or them, not both")
        conf = self.conf if conf is None else self._check_conf(conf)
        labels = None if classes is None else labels_of(classes, self.classes)
        session = self._sessions.get(wanted.width, wanted.precision)
        sides = Sides(*scaled_sides(session.sides, wanted.imgsz), session.takes_resized)
        ran = Point(wanted.width, sides.shorter, wanted.proposals or session.proposals, session.precision)
        return _Call(ran, session, sides, conf, labels, free)

    def _rung(self, number: int) -> Point:
        if not -len(self.ladder) <= number < len(self.ladder):
            raise ConfigError(f"point {number} is not one of the {len(self.ladder)} that {self.manifest.name} has")
        return self.ladder[number].point

    def _check_conf(self, conf: float) -> float:
        value, least = check_conf(conf), self.engine.least_conf
        if value < least:
            raise ConfigError(
                f"conf {value:g} is below {least:g}, the score under which this exported detector gives nothing; "
                "take engine torch, which goes down to 0"
            )
        return value

    def _results(
        self, sources: Iterable[Source], call: _Call, color: Color, batch: tuple[int, int]
    ) -> Iterator[Result]:
        """Results of so many images at a time, while so many more are read."""
        read = partial(self._read, call=call, color=color)
        with closing(in_order(read, sources, batch[1])) as coming:
            while images := [one.result() for one in islice(coming, batch[0])]:
                results = self._detect(images, call)[::-1]
                images.clear()  # nothing is held that was handed out, while the next are read
                while results:
                    yield results.pop()

    def _read(self, source: Source, call: _Call, color: Color) -> DecodedImage:
        sides = self._at(call, self.budget.point).sides if call.held and self.budget else call.sides
        return preprocessing.read(source, sides, color)

    def _at(self, call: _Call, point: Point) -> _Call:
        """The call at another point."""
        if call.point == point:
            return call
        return replace(self._check(None, conf=call.conf, point=point), labels=call.labels)

    def _detect(self, images: Sequence[DecodedImage], call: _Call) -> list[Result]:
        if not call.held or self.budget is None or not images:
            return self._run([image.at(call.sides) for image in images], images, call)
        budget, before, begin = self.budget, self.point, time.perf_counter()
        read_ms = fmean(image.read_ms for image in images)
        choice = budget.choose(read_ms)
        call = self._at(call, budget.points[choice.rung])
        resized = [image.at(call.sides) for image in images]  # made as they were read, but for a switch
        if call.point != before:
            budget.switch_ms.append(1000 * (time.perf_counter() - begin))
            begin = time.perf_counter()  # a cost of the switch is none of the point
        results = self._run(resized, images, call)
        budget.observe(choice.rung, 1000 * (time.perf_counter() - begin) / len(images))
        for result in results:
            result.speed["expected_ms"] = read_ms + choice.expected_ms
        return results

    def _run(self, resized: Sequence[NDArray[np.uint8]], images: Sequence[DecodedImage], call: _Call) -> list[Result]:
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, pixels in enumerate(resized):
            by_size.setdefault(pixels.shape, []).append(place)
        results: dict[int, Result] = {}
        for (height, width, _), places in by_size.items():
            step = max(1, TOGETHER // (height * width))
            for some in (places[start : start + step] for start in range(0, len(places), step)):
                begin = time.perf_counter()
                pixels = np.stack([resized[place] for place in some])
                found = call.session(pixels, call.conf, call.point.imgsz, call.point.proposals)
                elapsed = 1000 * (time.perf_counter() - begin) / len(some)
                for index, place in enumerate(some):
                    own = _of_image(found, index, images[place].size, (width, height))
                    results[place] = self._result(own, images[place], call, elapsed)
        return [results[place] for place in range(len(images))]

    def _result(self, found: Found, image: DecodedImage, call: _Call, elapsed: float) -> Result:
        kept = found.scores >= call.conf
        if call.labels is not None:
            kept &= np.isin(found.labels, call.labels)
        labels = found.labels[kept]
        return Result(
            boxes=found.boxes[kept],
            labels=labels,
            scores=found.scores[kept],
            names=[self.classes[label - 1] for label in labels.tolist()],
            point=call.point,
            speed={"read_ms": image.read_ms, "inference_ms": elapsed},
            source=image,
            classes=self.classes,
            category_ids=self.category_ids,
            mask_cells=None if found.masks is None else found.masks[kept],
        )


def _of_image(found: Found, index: int, size: Size, resized: Size) -> Found:
    """What was found in one image of a batch, boxes in pixels of its whole size and not of its resized one."""
    own = found.image_index == index
    boxes = found.boxes[own]
    if size != resized:
        boxes = boxes * np.array([size[0] / resized[0], size[1] / resized[1]] * 2, dtype=np.float32)
    masks = None if found.masks is None else found.masks[own]
    return Found(boxes, found.labels[own], found.scores[own], found.image_index[own], masks)
