"""RoIAlign as an operator against two products of interpolation matrices, made of standard operators.

    python benchmarks/runtime/roialign.py [--out roialign.json]

A box's 7 x 7 cells are A F B': F a channel of the feature map, A [7, H] and B [7, W] the weights with which its rows
and columns are averaged. "products" pools each box from the map of its level and puts channels first, as RoIAlign does;
"without the last transposition" leaves [boxes, 7, channels, 7], whose order the weights of the next layer would have
to take on. One image, one thread, CPU milliseconds, medians of turns. Maps and boxes as the bundled detector has them
(186 pixels) and as a ResNet-50's full neck has them at 640 (its three finest maps), most boxes on the finest.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from torch import Tensor, nn
from torch.onnx.operators import shape_as_tensor
from torchvision.ops import roi_align

from slimdet.devices import cpu_name

SIDE, SAMPLES, LEVELS, ROUNDS = 7, 2, 3, 15
# Finest map's side, its stride, boxes, channels.
CASES = {
    "bundled, width 0.25": (24, 8, 150, 32),
    "bundled, width 1.0": (24, 8, 150, 128),
    "r50 at 640, width 0.25": (160, 4, 1000, 64),
    "r50 at 640, width 1.0": (160, 4, 1000, 256),
}


def by_operator(level: Tensor, boxes: Tensor, scale: float) -> Tensor:
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    return roi_align(level, rois, (SIDE, SIDE), scale, SAMPLES)


def by_products(level: Tensor, boxes: Tensor, scale: float) -> Tensor:
    """-> [boxes, 7, channels, 7]"""
    sides: Any = shape_as_tensor(level)[2:]
    weights = []
    for axis in (1, 0):  # y, x
        low, high = boxes[:, axis, None] * scale, boxes[:, axis + 2, None] * scale
        places = low + (high - low).clamp(min=1.0) * ((torch.arange(SIDE * SAMPLES) + 0.5) / (SIDE * SAMPLES))
        last = sides[1 - axis].float()
        inside = (places <= last).float()
        places = torch.minimum(places.clamp(min=0), last - 1)
        near = (1 - (places[:, :, None] - torch.arange(sides[1 - axis])).abs()).clamp(min=0) * inside[:, :, None]
        weights.append(near.reshape(-1, SIDE, SAMPLES, sides[1 - axis]).sum(2) / SAMPLES)
    rows, columns = weights
    features = level[0].permute(1, 0, 2).flatten(1)  # [H, channels * W]
    averaged = (rows.flatten(0, 1) @ features).reshape(-1, SIDE * level.shape[1], sides[1])
    return (averaged @ columns.transpose(1, 2)).reshape(-1, SIDE, level.shape[1], SIDE)


WAYS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "operator": by_operator,
    "products": lambda *given: by_products(*given).permute(0, 2, 1, 3),
    "without the last transposition": by_products,
}


class Pool(nn.Module):
    def __init__(self, way: str, stride: int) -> None:
        super().__init__()
        self.way, self.stride = WAYS[way], stride

    def forward(self, boxes: Tensor, number: Tensor, *levels: Tensor) -> Tensor:
        return torch.cat(
            [
                self.way(level, boxes[torch.where(number == place)[0]], 1 / (self.stride * 2**place))
                for place, level in enumerate(levels)
            ]
        )


def measure(side: int, stride: int, count: int, channels: int, folder: Path) -> dict[str, dict[str, float]]:
    extent = side * stride
    centre, size = torch.rand(count, 2) * extent, torch.exp(0.7 * torch.randn(count, 2)) * extent / 5
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1).clamp(0, extent)
    number = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), count, replacement=True).sort()[0]
    levels = [torch.randn(1, channels, side >> place, side >> place) for place in range(LEVELS)]
    names = ["boxes", "number", *(f"level{place}" for place in range(LEVELS))]
    feeds = dict(zip(names, [one.numpy() for one in (boxes, number, *levels)], strict=True))
    dynamic = {name: {2: f"H of {name}", 3: f"W of {name}"} for name in names[2:]} | {
        name: {0: "R"} for name in names[:2]
    }
    runs: dict[tuple[str, str], Callable[[], Any]] = {}
    for way in WAYS:
        file = folder / "pool.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = (boxes, number, *levels)
            torch.onnx.export(
                Pool(way, stride), given, file, dynamo=False, input_names=names, dynamic_axes=dynamic, opset_version=17
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(file, options)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        request = openvino.Core().compile_model(file, "CPU", settings).create_infer_request()
        runs["onnxruntime", way] = lambda session=session: session.run(None, feeds)[0]
        runs["openvino", way] = lambda request=request: request.infer(feeds)[0]
    pooled = runs["onnxruntime", "operator"]()
    np.testing.assert_allclose(runs["onnxruntime", "products"](), pooled, atol=1e-4)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(ROUNDS):
        for key, run in runs.items():
            start = time.process_time()
            run()
            times[key].append(1000 * (time.process_time() - start))
    found: dict[str, dict[str, float]] = {}
    for (engine, way), each in times.items():
        found.setdefault(engine, {})[way] = round(statistics.median(each[2:]), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    out = parser.parse_args().out
    torch.manual_seed(0)
    libraries = {name: version(name) for name in ("onnxruntime", "openvino", "torch", "torchvision")}
    machine = {"processor": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "threads": 1, **libraries}
    result: dict[str, Any] = {"machine": machine}
    with tempfile.TemporaryDirectory() as folder:
        for name, case in CASES.items():
            result[name] = measure(*case, Path(folder))
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
