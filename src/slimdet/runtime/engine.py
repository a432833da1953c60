"""What runs a detector: the one interface that all engines have, and the choice among them.

Legend: B images, N detections in all of them together, M cells along a side of a mask, H x W pixels.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

from slimdet.bundle.ladder import Point, Precision
from slimdet.bundle.manifest import Manifest
from slimdet.errors import BundleError, ConfigError, SlimdetError
from slimdet.messages import check_choice, check_choices, first_line
from slimdet.models import kinds

if TYPE_CHECKING:  # nothing heavy is imported here: the command line reads the defaults
    import numpy as np
    from numpy.typing import NDArray

EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]
Memory = Literal["fast", "low"]
ENGINES = get_args(EngineName)[1:]  # each a class in a module of its own, which imports the library
CONF = 0.25  # least score of a detection, where nobody says another


@dataclass(frozen=True)
class EngineSettings:
    """Which engine runs, and how.

    Attributes:
        engine: "auto" is the one that measured best on this machine if that is known (`slimdet.runtime.choice`), else
            onnxruntime where the model was exported, else torch.
        device: "auto", "cpu", "cuda", "cuda:N", "mps" (also "coreml"), as far as the engine has it.
        threads: for one run; by default the engine's own choice, which is about one for each core.
        imgsz: shorter side that images are resized to, in pixels, where a call names none; None is the model's.
        proposals: boxes that the second stage looks at, where a call names no number; None is the model's.
        precision: of the layers, where a call names none; None is the best that was measured for each width.
        memory: "low" keeps no copy of the weights for each width: layers take theirs from the bundle's one file, mapped
            into memory, run by run, which is slower. For onnxruntime and files that were exported with `linked`.
        width_threads: threads of single widths, ((0.25, 1), ...), in place of `threads`.

    Raises:
        ConfigError: no such engine, precision or mode of memory, or a number that is too small.
    """

    engine: EngineName = "auto"
    device: str = "auto"
    threads: int | None = None
    imgsz: int | None = None
    proposals: int | None = None
    precision: Precision | None = None
    memory: Memory = field(default="fast", kw_only=True)
    width_threads: tuple[tuple[float, int], ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        check_choices(self)
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads {self.threads} must be 1 or more")
        Point(imgsz=self.imgsz, proposals=self.proposals, precision=self.precision)  # checks them

    def threads_of(self, width: float) -> int | None:
        """Threads of one run of a width; None is the engine's own choice."""
        return dict(self.width_threads).get(width, self.threads)


class Found(NamedTuple):
    """The detections of a batch, by image and then by falling score.

    Attributes:
        boxes: float32 [N, 4], x1 y1 x2 y2 in pixels of the images.
        labels: int64 [N], 1..K.
        scores: float32 [N], 0..1.
        image_index: int64 [N], 0..B-1.
        masks: None, or float32 [N, M, M], probabilities over the boxes, or bool [N, H, W] from a detector that pastes
            them by a rule of its own (those of the original system).
    """

    boxes: "NDArray[np.float32]"
    labels: "NDArray[np.int64]"
    scores: "NDArray[np.float32]"
    image_index: "NDArray[np.int64]"
    masks: "NDArray | None" = None


class Session(Protocol):
    """One width in one precision, ready to run. Several threads may call it at once.

    Attributes:
        sides: the shorter side that images are resized to and the longer side's limit, in pixels, where a call names
            no size.
        takes_resized: whether images may come in that size already; otherwise they come whole.
        proposals: boxes that the second stage looks at, where a call names no number; None where the detector has no
            such number, or an old engine file does not tell it.
        precision: of the layers.
    """

    sides: tuple[int, int]
    takes_resized: bool
    proposals: int | None
    precision: Precision

    def __call__(
        self, images: "NDArray[np.uint8]", conf: float = 1.0, imgsz: int | None = None, proposals: int | None = None
    ) -> Found:
        """Detect objects.

        Args:
            images: uint8 [B, H, W, 3], RGB.
            conf: all detections of the detector's own threshold and above are given, and where the engine can go below
                it, those down to this score.
            imgsz: shorter side that they are resized to, 32 pixels or more; the longer side's limit keeps its ratio.
            proposals: boxes that the second stage looks at, 1 or more.

        Raises:
            ConfigError: the detector or its engine file cannot run at another size or number of proposals.
        """
        ...


class Engine(Protocol):
    """A library that runs detectors.

    Attributes:
        name: one of `ENGINES`.
        device: what it runs on, in its own words.
        least_conf: the score below which it gives no detections, whatever is asked for.
        own_conf: the least score that the detector itself is set to.
    """

    name: str
    device: str
    least_conf: float
    own_conf: float

    def precision(self, width: float) -> Precision:
        """The precision of a width where nobody names one: that of the settings, or the best that was measured."""
        ...

    def load(self, width: float, precision: Precision | None = None) -> Session:
        """Make a width ready.

        Raises:
            BundleError: the bundle has no engine file of this width, or not one that works.
            ConfigError: the engine does not have this precision here, or the file not this size.
        """
        ...

    def files(self, width: float, precision: Precision | None = None) -> list[Path]:
        """What it reads from disk for this width."""
        ...


def choose(name: EngineName, bundle: Manifest) -> EngineName:
    """The engine of that name; "auto" is onnxruntime where the bundle has exported widths, torch otherwise: the rule.

    Raises:
        ConfigError: no such engine.
        BundleError: nothing here can run this bundle.
    """
    check_choice("engine", name, get_args(EngineName))
    if name != "auto":
        return name
    if bundle.engines("onnx"):
        return "onnxruntime"
    if find_spec("torch"):
        return "torch"
    raise BundleError(
        f"{bundle.name} was not exported and torch is not installed; run 'slimdet export --model {bundle.name}' "
        "where torch is, or get it with: pip install 'slimdet[train]'"
    )


def make(name: str, bundle: Manifest, options: EngineSettings) -> Engine:
    """The engine `name`, one of `ENGINES`, for a bundle.

    Raises:
        ConfigError: it is not installed, has no such device or mode of memory, or would lose what this kind of detector
            finds.
    """
    if options.memory == "low" and name != "onnxruntime":
        raise ConfigError(f"{name} has no memory 'low': leave it out, or take engine onnxruntime")
    kinds.require(bundle.architecture, "run", bundle.name)
    module = import_module(f"slimdet.runtime.{name}_engine")
    return getattr(module, f"{name.capitalize()}Engine")(bundle, options)


def check_precision(precision: Precision, known: Collection[Precision], where: str, way: str) -> None:
    """Refuse a precision that an engine does not have.

    Raises:
        ConfigError: it names the way out.
    """
    if precision not in known:
        raise ConfigError(f"{where} has no {precision}; take precision {', '.join(sorted(known))}, or {way}")


@contextmanager
def failing(what: str | Path) -> Iterator[None]:
    """Turn whatever an engine raises while it runs into a BundleError that names the file or bundle.

    Raises:
        BundleError: as said; errors of slimdet and a lack of memory stay what they are.
    """
    try:
        yield
    except (SlimdetError, MemoryError):
        raise
    except Exception as error:  # the libraries' exceptions have no base of their own
        raise BundleError(f"{what} was opened, but fails when it runs: {first_line(error)}") from error


def exported_threshold(bundle: Manifest) -> float:
    """The score that detections of a bundle's engine files are above: the detector's own, which the graph has within.

    A bundle records what differs from the builder's settings, and torchvision's is 0.05.

    Raises:
        BundleError: what it records is no score.
    """
    settings: Any = bundle.architecture.get("settings") or {}
    try:
        threshold = settings.get("roi_heads", {}).get("score_thresh", 0.05)
        if 0 <= threshold <= 1:
            return float(threshold)
    except (AttributeError, TypeError):
        pass
    raise BundleError(f"{bundle.name}: the score_thresh of its architecture is not in 0..1; get the bundle again")
