"""Peak memory of collecting statistics from large photographs.

    OMP_NUM_THREADS=1 python benchmarks/training/photographs.py [--images 48]

JPEGs of 4000x3000, batches of 16, the light neck at 256 pixels, four widths. `peak_mb` is what the process grew by at
most (Linux); `originals_mb` what the photographs would take at once, in float32. Results go to photographs.json.
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from step import WIDTHS, process_mb

from slimdet import slim
from slimdet.data.coco import CocoDataset
from slimdet.data.transforms import ShrinkInto
from slimdet.files import atomic_write
from slimdet.models import builders
from slimdet.training.statistics import calibration_batches, collect_statistics

OUT = Path(__file__).with_suffix(".json")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    images = parser.parse_args().images
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = slim(builders.faster_rcnn(3, "mobilenet_v2", "light", None, "batch"), WIDTHS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8))
        noise.resize((4000, 3000), Image.Resampling.BICUBIC).save(folder / "0.jpg")
        for number in range(1, images):
            (folder / f"{number}.jpg").symlink_to(folder / "0.jpg")
        coco = {
            "images": [{"id": k, "file_name": f"{k}.jpg", "width": 4000, "height": 3000} for k in range(images)],
            "annotations": [
                {"id": k, "image_id": k, "category_id": 1, "bbox": [9, 9, 2000, 900], "area": 1_800_000, "iscrowd": 0}
                for k in range(images)
            ],
            "categories": [{"id": 1, "name": "one"}],
        }
        (folder / "coco.json").write_text(json.dumps(coco))
        dataset = CocoDataset(folder / "coco.json", folder, train=True)
        dataset.shrink = ShrinkInto(256, 352)
        Path("/proc/self/clear_refs").write_text("5")
        before = process_mb("VmRSS")
        used = collect_statistics(model, WIDTHS, calibration_batches(dataset, images, 16))
        row = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread, torch {torch.__version__}",
            "images": used,
            "peak_mb": round(process_mb("VmHWM") - before),
            "originals_mb": round(images * 4000 * 3000 * 3 * 4 / 2**20),
        }
    with atomic_write(OUT) as temporary:
        temporary.write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
