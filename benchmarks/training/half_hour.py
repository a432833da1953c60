"""What the defaults reach with 300 images in half an hour of two cores.

    python benchmarks/training/half_hour.py --shared ../shared [--recipe default] [--lr 0.04] [--out FILE]

300 training photographs of animalpose, drawn evenly, and 200 of val; nothing is said but data and the backbone's
weights. The record has the wall and CPU time and AP50 of every width.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from slimdet.bundle.manifest import read
from slimdet.devices import cores

IMAGES = {"train": 300, "val": 200}
WORK = Path("runs/half-hour")


def data_file(shared: Path) -> Path:
    """DATA.yaml of evenly drawn images."""
    source = (shared / "data" / "animalpose").resolve()
    WORK.mkdir(parents=True, exist_ok=True)
    lines = []
    for part, count in IMAGES.items():
        coco = json.loads((source / "annotations" / f"instances_{part}.json").read_text())
        images = sorted(coco["images"], key=lambda image: image["file_name"])
        kept = [images[number * len(images) // count] for number in range(count)]
        ids = {image["id"] for image in kept}
        coco |= {"images": kept, "annotations": [one for one in coco["annotations"] if one["image_id"] in ids]}
        (WORK / f"{part}.json").write_text(json.dumps(coco))
        lines.append(f"{part}: {{images: {source / 'images'}, annotations: {part}.json}}\n")
    file = WORK / "data.yaml"
    file.write_text("".join(lines))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--lr", type=float, help="in place of the recipe's")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("half_hour.json"))
    given = parser.parse_args()
    data = data_file(given.shared)
    run = WORK / given.recipe
    shutil.rmtree(run, ignore_errors=True)
    weights = given.shared / "data" / "weights" / "mobilenetv2_imagenet_features.pt"
    words = ["--data", data, "--weights", weights, "--recipe", given.recipe, "--out", run]
    words += ["--lr", given.lr] if given.lr else []
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "slimdet", "train", *map(str, words)], check=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {"wall_s": round(time.monotonic() - began), "cpu_s": round(usage.ru_utime + usage.ru_stime)}
    lines = (run / "metrics.jsonl").read_text().splitlines()
    steps = max(line.get("step", 0) for line in map(json.loads, lines))
    widths = {
        width: {key: round(one["bbox"][key], 4) for key in ("AP", "AP50")}
        for width, one in read(run / "model").metrics.items()
    }
    record = {"date": str(date.today()), "cores": cores(), "steps": steps, **spent, "peak_mb": usage.ru_maxrss // 1024}
    record |= {"images": IMAGES, "recipe": given.recipe, "lr": given.lr, "widths": widths}
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
