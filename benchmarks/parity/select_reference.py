"""Choose the part of the original's reference numbers that ships with the tests.

    python benchmarks/parity/select_reference.py ../shared/seed tests/assets/original

Runs of the detector keep what the tests compare: results, and of some runs samples of every feature map and the best
proposals. Of resized images the sha256 stays. JSON is compressed.
"""

import argparse
import hashlib
import json
import lzma
import shutil
from pathlib import Path

import numpy as np

# (kind, image) of runs at all four widths: with every step, or the results alone.
STEPS = (("rpn", "coffee"), ("mask", "chelsea_portrait"), ("faster", "astronaut"))
RESULTS = (("faster", "coffee"), ("faster", "chelsea_portrait"))
# Masks are large: these two besides.
MASKS = ("mask_coffee_512x320_w025.npz", "mask_astronaut_512x320_w100.npz")
TRAINING = ("train_faster_all", "train_mask_all", "train_rpn_all", "train_mask_random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder with all of them: *_keys.json, reference/")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    reference = given.source / "reference"
    (given.out / "images").mkdir(parents=True, exist_ok=True)
    for file in (reference / "images").glob("*.png"):
        shutil.copyfile(file, given.out / "images" / file.name)
    shutil.copyfile(reference / "tiny_coco.json", given.out / "tiny_coco.json")
    _save(given.out / "unit_refs.npz", dict(np.load(reference / "unit_refs.npz")))
    for kind, image in STEPS + RESULTS:
        for file in reference.glob(f"{kind}_{image}_*.npz"):
            _save(given.out / file.name, _run(dict(np.load(file)), steps=(kind, image) in STEPS))
    for name in MASKS:
        _save(given.out / name, _run(dict(np.load(reference / name)), steps=False))
    for name in ("eval_refs", *TRAINING):
        _save_json(given.out / f"{name}.json.xz", reference / f"{name}.json")
    for file in given.source.glob("*.json"):
        _save_json(given.out / f"{file.name}.xz", file)


def _run(numbers: dict[str, np.ndarray], steps: bool) -> dict[str, np.ndarray]:
    kept = {name: value for name, value in numbers.items() if name.startswith(("result/", "meta/"))}
    if steps:
        ends = ("/shape", "/sample", "proposals/count", "proposals/sum", "proposals/top200")
        kept |= {name: value for name, value in numbers.items() if name.endswith(ends)}
    if "input/resized_bgr" in numbers:
        digest = hashlib.sha256(numbers["input/resized_bgr"].tobytes()).hexdigest()
        kept["input/resized_sha256"] = np.array(digest)
    return kept


def _save(file: Path, numbers: dict[str, np.ndarray]) -> None:
    np.savez_compressed(file, **numbers)  # pyright: ignore[reportArgumentType]


def _save_json(file: Path, source: Path) -> None:
    text = json.dumps(json.loads(source.read_text()), separators=(",", ":"))
    file.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
