"""What many classes cost at the narrowest width: boxes are decoded where a score passes, not for every class.

    python benchmarks/runtime/classes.py [--out classes.json]

A thin ResNet-50 with the light neck, 320 x 320 pixels, 1000 proposals, ONNX Runtime, one thread; random weights.
CPU milliseconds in turns, medians, and the share of what is neither convolution nor linear layer.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from floor import _detecting, _shares, machine, onnxruntime_run, picture

import slimdet
from slimdet.exporting.onnx import folded, to_onnx
from slimdet.models import builders

CLASSES, SIDE, ROUNDS = (5, 80, 365), 320, 15


def _spread(detector: Any, image: torch.Tensor) -> None:
    """Scores that differ from box to box, of which a few in a thousand pass the threshold."""
    layer, seen = detector.roi_heads.box_predictor.cls_score, []
    handle = layer.register_forward_hook(lambda layer, given, out: seen.append(out))
    with torch.no_grad():
        detector([image])
        handle.remove()
        scale = 1.5 / seen[0].std(0)
        layer.weight.mul_(scale[:, None])
        layer.bias.sub_(seen[0].mean(0)).mul_(scale)
        layer.bias[0] += 6.0  # background


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    image = picture(SIDE)
    inputs = {"images": image, "imgsz": np.array(SIDE), "proposals": np.array(1000)}
    result: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for classes in CLASSES:
            torch.manual_seed(0)
            model = builders.faster_rcnn(classes + 1, "resnet50_thin", "light", None, imgsz=(SIDE, SIDE))
            detector: Any = slimdet.slim(model, (0.25, 1.0)).eval().extract(0.25)
            detector.rpn._post_nms_top_n["testing"] = 1000
            _detecting(detector, torch.from_numpy(image[0]).permute(2, 0, 1) / 255)
            _spread(detector, torch.from_numpy(image[0]).permute(2, 0, 1) / 255)
            files[classes] = Path(folder) / f"{classes}.onnx"
            onnx.save(folded(to_onnx(detector, {})), files[classes])
        runs = {classes: onnxruntime_run(file, False)[0] for classes, file in files.items()}
        times: dict[int, list[float]] = {classes: [] for classes in CLASSES}
        for _ in range(ROUNDS):
            for classes, run in runs.items():
                start = time.process_time()
                run(inputs)
                times[classes].append(1000 * (time.process_time() - start))
        for classes, each in times.items():
            shares = _shares(onnxruntime_run(files[classes], True), inputs)
            found = len(runs[classes](inputs)[0])
            result[str(classes)] = {"CPU ms": round(statistics.median(each), 2), "detections": found} | shares
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
