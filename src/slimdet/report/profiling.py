"""What each width costs: parameters, multiply-adds, latency, memory.

Measured on extracted detectors, the plain narrow ones that a user runs, and on one fixed picture. Two of the numbers
would depend on what a detector happens to see in it, so multiply-adds and memory are those of a *full house*: as many
proposals and detections as the detector's settings allow. Latency is that of the detector as it is.
"""

import copy
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from slimdet.bundle.ladder import Point
from slimdet.core.slimmable import Slimmable
from slimdet.devices import choose_device
from slimdet.errors import ConfigError
from slimdet.report.settings import ProfileSettings
from slimdet.runtime.latency import latencies, summary

MB = 2**20
LEAST_SIDE = 32  # pixels: the coarsest pyramid level has one cell for them


@dataclass(frozen=True)
class Profile:
    """What each width costs with torch.

    Attributes:
        imgsz: side of the square picture, pixels; None with an example of one's own.
        widths: {"0.25": {...}, ...} with

            - "parameters": number of values in all parameters;
            - "macs": multiply-adds of a full house, torch's count of floating-point operations halved (the convention
              of "Slimmable Neural Networks", ICLR 2019: ResNet-50 at 224x224 has 4.1 G): convolutions and matrix
              products;
            - "latency_ms", "latency_spread_ms": as `slimdet.runtime.latency.summary` has them;
            - "memory_mb": weights plus the peak of what torch allocates during a full house, in MiB; the scratch
              memory of the mathematical libraries is not counted. Absent on devices that cannot tell (mps).
    """

    device: str
    threads: int
    imgsz: int | None
    repeats: int
    widths: dict[str, dict[str, float]]


def profile(
    model: Slimmable | Mapping[float, nn.Module],
    imgsz: int | None = None,
    device: str = ProfileSettings.device,
    repeats: int = ProfileSettings.repeats,
    example: tuple[Any, ...] | None = None,
) -> Profile:
    """Measure every width of a model; the model itself is left as it was.

    Args:
        model: a slimmable detector, or ordinary detectors by width.
        imgsz: side of the square picture in pixels, which the detector neither shrinks nor enlarges; the default is
            the shorter side that the detector resizes images to.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        repeats: timed runs of every width.
        example: positional arguments of a forward pass, for modules that do not take a list of images.

    Raises:
        ConfigError: the device is not there, or `imgsz` or `repeats` is too small.
    """
    if imgsz is not None and imgsz < LEAST_SIDE:
        raise ConfigError(f"--imgsz {imgsz} is too small; use {LEAST_SIDE} pixels or more")
    if repeats < 1:
        raise ConfigError(f"repeats {repeats} must be 1 or more")
    place = choose_device(device)
    detectors = _detectors(model, place)
    if example is None:
        imgsz = imgsz or max(_usual_side(detector) for detector in detectors.values())
        for detector in detectors.values():
            _take_size(detector, imgsz)
        picture = torch.rand(3, imgsz, imgsz, generator=torch.Generator().manual_seed(0))
        example = ([picture.to(place)],)
    calls = {width: partial(_run, detector, example, place) for width, detector in detectors.items()}
    with torch.no_grad():
        runs = latencies(calls, repeats)
        costs = {width: summary(runs[width]) | _full_house(detectors[width], example, place) for width in detectors}
    return Profile(place.type, torch.get_num_threads(), imgsz, repeats, costs)


def count_macs(module: nn.Module, example: tuple[Any, ...]) -> int:
    """Multiply-adds of one forward pass: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*example)
    return counter.get_total_flops() // 2


def point_macs(model: Slimmable, points: Iterable[Point]) -> dict[Point, int]:
    """Multiply-adds of a full house at each point, of a square picture of its size; the model is left as it was.

    Raises:
        ConfigError: proposals of a detector that has none.
    """
    found, detectors = {}, {}
    for point in points:
        if point.width not in detectors:
            detectors[point.width] = model.extract(point.width).cpu().eval()
            _fill_house(detectors[point.width])
        detector = detectors[point.width]
        side = point.imgsz or _usual_side(detector)
        _take_size(detector, side)
        if point.proposals is not None:
            limits = getattr(getattr(detector, "rpn", None), "_post_nms_top_n", None)  # torchvision's
            if limits is None:
                raise ConfigError(f"{type(detector).__name__} has no number of proposals; leave --proposals out")
            limits["testing"] = point.proposals
        found[point] = count_macs(detector, ([torch.zeros(3, side, side)],))
    return found


def _detectors(model: Slimmable | Mapping[float, nn.Module], place: torch.device) -> dict[str, nn.Module]:
    if isinstance(model, Slimmable):
        plain = {width: model.extract(width) for width in model.widths}
    else:
        plain = {width: copy.deepcopy(model[width]) for width in sorted(model)}
    return {str(width): detector.to(place).eval() for width, detector in plain.items()}


# ------------------------------------------------------------------------------------------------- one fixed picture


def _usual_side(detector: nn.Module) -> int:
    transform: Any = getattr(detector, "transform", None)
    if transform is None:
        raise ConfigError(f"{type(detector).__name__} is no torchvision detector; pass an example of its arguments")
    fixed = getattr(transform, "fixed_size", None)  # SSD's (width, height)
    return int(max(fixed) if fixed else transform.min_size[-1])


def _take_size(detector: nn.Module, side: int) -> None:
    transform: Any = detector.transform
    transform.min_size, transform.max_size = (side,), side
    if getattr(transform, "fixed_size", None):
        transform.fixed_size = (side, side)


def _fill_house(detector: Any) -> None:
    """Make a two-stage detector keep all the proposals and detections that its settings allow, whatever it sees."""
    if hasattr(detector, "rpn"):
        detector.rpn.nms_thresh, detector.rpn.score_thresh, detector.rpn.min_size = 2.0, 0.0, -1.0
    heads: Any = getattr(detector, "roi_heads", None)
    # Mask and keypoint heads look at each detection; without them nothing comes after the detections.
    if heads is not None and any(getattr(heads, f"{kind}_head", None) is not None for kind in ("mask", "keypoint")):
        heads.postprocess_detections = partial(_proposals_as_detections, heads.detections_per_img)


def _proposals_as_detections(
    limit: int, logits: Tensor, deltas: Tensor, proposals: list[Tensor], sizes: list[tuple[int, int]]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Stands in for torchvision's `RoIHeads.postprocess_detections`: boxes [limit, 4], scores and labels [limit]."""
    boxes = [some.repeat(limit // max(len(some), 1) + 1, 1)[:limit] for some in proposals]
    return boxes, [some.new_ones(len(some)) for some in boxes], [some.new_ones(len(some)).long() for some in boxes]


# ------------------------------------------------------------------------------------------------- the numbers


def _run(detector: nn.Module, example: tuple[Any, ...], place: torch.device) -> None:
    """One forward pass to its end."""
    detector(*example)
    if place.type != "cpu":
        torch.accelerator.synchronize(place)


def _full_house(detector: nn.Module, example: tuple[Any, ...], place: torch.device) -> dict[str, float]:
    costs: dict[str, float] = {"parameters": sum(parameter.numel() for parameter in detector.parameters())}
    weights = sum(_bytes(tensor) for tensor in [*detector.parameters(), *detector.buffers()])
    _fill_house(detector)
    costs["macs"] = count_macs(detector, example)
    if place.type == "cpu":
        costs["memory_mb"] = (weights + _peak_on_cpu(detector, example)) / MB
    elif place.type == "cuda":
        costs["memory_mb"] = (weights + _peak_on_cuda(detector, example, place)) / MB
    return costs


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _peak_on_cuda(detector: nn.Module, example: tuple[Any, ...], place: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(place)
    before = torch.cuda.memory_allocated(place)
    detector(*example)
    return torch.cuda.max_memory_allocated(place) - before


def _peak_on_cpu(detector: nn.Module, example: tuple[Any, ...]) -> int:
    """Peak of the bytes that torch's allocator gives out during one forward pass.

    Not the process's resident set: that never shrinks, is shared by all widths, and holds Python and torch.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's remarks would go to stderr
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorder:
        detector(*example)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        recorder.export_chrome_trace(str(file))
        events: Sequence[dict[str, Any]] = json.loads(file.read_bytes())["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak
