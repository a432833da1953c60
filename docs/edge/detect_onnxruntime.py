"""Detect objects with ONNX Runtime: python detect_onnxruntime.py width-0.5.onnx photo.jpg [least score]"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps


def paste(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask's probabilities [28, 28] over its box -> bool [height, width], as torchvision pastes them."""
    padded = np.pad(mask, 1)  # a ring of zeros, and a box that is larger alike
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * len(padded) / len(mask)
    x1, y1, x2, y2 = np.concatenate([centre - half, centre + half]).astype(int)
    cells = Image.fromarray(padded).resize((max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)), Image.Resampling.BILINEAR)
    whole = Image.new("F", (width, height))
    whole.paste(cells, (int(x1), int(y1)))
    return np.asarray(whole) > 0.5


model, photograph, least = sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 0.5
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
outputs = [output.name for output in session.get_outputs()]

image = ImageOps.exif_transpose(Image.open(photograph)).convert("RGB")
pixels = np.asarray(image)[None]  # uint8 [1, height, width, 3]; np.stack for several of one size
found = dict(zip(outputs, session.run(None, {"images": pixels}), strict=True))

draw = ImageDraw.Draw(image)
for row in np.flatnonzero(found["scores"] >= least):
    box, name = found["boxes"][row], classes[found["labels"][row] - 1]
    print(f"{name} {found['scores'][row]:.2f} at", *(f"{side:.1f}" for side in box))
    if "masks" in found:
        print(f"  its mask: {paste(found['masks'][row], box, image.height, image.width).sum()} pixels")
    draw.rectangle(box.tolist(), outline="red", width=2)
    draw.text((box[0] + 3, box[1] + 1), name, fill="red")
image.save("found.jpg")
