"""What reading a large picture takes: bytes of memory and CPU nanoseconds a pixel, by kind of file.

    python benchmarks/runtime/decoding.py [--side 4000] [--before SRC]

Square photographs, made from noise that was enlarged. Each is read in a process of its own; memory is what the
process's peak grows by, the file's bytes included. With --before the folder `src` of another checkout is measured too.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

OUT = Path(__file__).with_suffix(".json")
ROUNDS = 3
READ = """
import json, sys, time
from slimdet.images.decoding import read_image
def status(name):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
before, began = status("VmRSS:"), time.process_time()
height, width, _ = read_image(sys.argv[1]).shape
seconds = time.process_time() - began
print(json.dumps({"bytes": (status("VmHWM:") - before) / height / width, "ns": 1e9 * seconds / height / width}))
"""


def pictures(folder: Path, side: int) -> None:
    """Write one file of each kind."""
    noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    rgb = Image.fromarray(noise).resize((side, side))
    grey = rgb.convert("L")
    rgba = rgb.convert("RGBA")
    rgba.putalpha(grey)
    turned = Image.Exif()
    turned[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    fast = {"compress_level": 1}
    rgb.save(folder / "JPEG.jpg")
    rgb.save(folder / "JPEG, progressive.jpg", progressive=True)
    rgb.save(folder / "JPEG, turned.jpg", exif=turned)
    rgb.convert("CMYK").save(folder / "JPEG, CMYK.jpg")
    rgba.save(folder / "PNG, transparent.png", **fast)
    rgba.save(folder / "PNG, transparent, with a profile.png", icc_profile=profile, **fast)
    rgb.convert("P").save(folder / "PNG, palette.png", transparency=3, **fast)
    grey.convert("I;16").save(folder / "PNG, 16-bit grey.png", **fast)
    rgba.save(folder / "WebP, transparent.webp", quality=50, method=0)
    Image.fromarray(np.asarray(grey).astype(np.float32)).save(folder / "TIFF, floats.tif")
    Image.fromarray(np.asarray(grey).astype(np.int32)).save(folder / "TIFF, 32-bit grey.tif")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4000)
    parser.add_argument("--before", type=Path)
    given = parser.parse_args()
    sources = {"now": Path(__file__).resolve().parents[2] / "src"} | ({"before": given.before} if given.before else {})
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures(Path(folder), given.side)
        for file in sorted(Path(folder).iterdir()):
            runs: dict[str, list[dict[str, float]]] = {}
            for _ in range(ROUNDS):
                for name, source in sources.items():
                    text = subprocess.check_output(
                        [sys.executable, "-c", READ, str(file)], env=os.environ | {"PYTHONPATH": str(source)}
                    )
                    runs.setdefault(name, []).append(json.loads(text))
            found[file.stem] = {
                name: {key: round(min(one[key] for one in several), 1) for key in ("bytes", "ns")}
                for name, several in runs.items()
            }
    machine = {"processor": platform.machine(), **{name: version(name) for name in ("pillow", "numpy")}}
    record = {"machine": machine, "pixels": given.side**2, "a pixel": found}
    OUT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
