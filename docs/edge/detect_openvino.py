"""Detect objects with OpenVINO: python detect_openvino.py width-0.5.xml photo.jpg [least score]"""

import json
import sys

import numpy as np
import openvino
from PIL import Image, ImageOps

file, photograph, least = sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 0.5
core = openvino.Core()
model = core.read_model(file)  # .xml with its .bin beside it, or .onnx
classes, own = (json.loads(model.get_rt_info(["framework", name]).astype(str)) for name in ("classes", "input"))
# f32: by itself OpenVINO takes 16 bits where the processor has them, which moves scores in the third digit.
compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

image = ImageOps.exif_transpose(Image.open(photograph)).convert("RGB")
inputs = {"images": np.asarray(image)[None]}  # uint8 [1, height, width, 3]
if len(compiled.inputs) > 1:  # an .xml has to be given its size and number of proposals
    inputs |= {"imgsz": np.array(own["min_size"]), "proposals": np.array(own["proposals"])}
found = compiled(inputs)
for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
    if score >= least:
        print(f"{classes[label - 1]} {score:.2f} at", *(f"{side:.1f}" for side in box))
