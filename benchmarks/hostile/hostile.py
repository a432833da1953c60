"""Damaged and hostile files by the thousand: how many end in anything but a named error or a result.

    python benchmarks/hostile/hostile.py bundles 10000 > benchmarks/hostile/bundles.json
    python benchmarks/hostile/hostile.py images 5300 > benchmarks/hostile/images.json
    python benchmarks/hostile/hostile.py coco 333 > benchmarks/hostile/coco.json

A third argument is a limit in seconds (600), after which the cases that were done are counted.

Each case is a function of its number. A process of its own works through them and says the outcome of each; where it
dies or says nothing for 90 seconds, that case is a crash or a hang, and another process goes on behind it.
"""

import hashlib
import io
import json
import os
import platform
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from mutations import flip, mutate_json, mutate_onnx, mutate_xml

PATIENCE = 90  # seconds for one case, on a machine that has other work too


# --- the cases: a folder is prepared once in each process, and gives a function of a case's number


def bundles(folder: Path) -> Callable[[int], str]:
    """A small bundle, exported in all ways; a case damages one of its files and runs what it is for."""
    import numpy as np

    import slimdet
    from slimdet.bundle import manifest, store
    from slimdet.models import builders

    model = folder / "model"
    if not (folder / "made").exists():
        detector = builders.faster_rcnn(3, backbone="mobilenet_v2", neck="light", weights=None, imgsz=64)
        store.save(slimdet.slim(detector, (0.25, 1.0)), model)
        slimdet.export(model, width=0.25, format="openvino")
        slimdet.export(model, width=0.25, linked=True)
        (folder / "made").touch()
        (folder / "whole").mkdir()
        for file in model.iterdir():
            (folder / "whole" / file.name).write_bytes(file.read_bytes())
    files = {file.name: file.read_bytes() for file in (folder / "whole").iterdir()}
    document = json.loads(files["model.json"])
    onnx, xml = "width-0.25.onnx", "width-0.25.xml"
    image = np.zeros((64, 64, 3), np.uint8)

    def restore(changed: dict[str, bytes], recorded: dict[str, Any]) -> None:
        for name, content in (files | {"model.json": json.dumps(recorded).encode()} | changed).items():
            (model / name).write_bytes(content)

    def case(number: int) -> str:
        rng = random.Random(number)
        recorded = json.loads(files["model.json"])
        # OpenVINO and torch take a second where onnxruntime takes a tenth.
        engine: Any = rng.choices(("onnxruntime", "openvino"), (19, 1))[0]
        what = rng.choices(("document", "onnx", "xml", "bin", "weights"), (54, 40, 3, 1, 2))[0]
        if what == "document":
            restore({"model.json": mutate_json(document, rng).encode()}, recorded)
            engine = "torch" if rng.random() < 0.02 else engine
        elif what == "onnx":
            content = mutate_onnx(files[onnx], rng)
            recorded["engines"]["onnx"]["0.25"]["sha256"] = hashlib.sha256(content).hexdigest()
            if engine == "openvino":
                del recorded["engines"]["openvino"]
            restore({onnx: content}, recorded)
        elif what in ("xml", "bin"):
            engine, name = "openvino", xml if what == "xml" else "width-0.25.bin"
            content = mutate_xml(files[xml].decode(), rng).encode() if what == "xml" else flip(files[name], rng)
            if what == "xml" or rng.random() < 0.5:  # else it is found by its sha256
                key = "sha256" if what == "xml" else "bin_sha256"
                recorded["engines"]["openvino"]["0.25"][key] = hashlib.sha256(content).hexdigest()
            restore({name: content}, recorded)
        else:
            content = files["weights.safetensors"]
            header = int.from_bytes(content[:8], "little")
            changed = mutate_json(json.loads(content[8 : 8 + header]), rng).encode()
            content = len(changed).to_bytes(8, "little") + changed + content[8 + header :]
            recorded["weights"]["sha256"] = hashlib.sha256(content).hexdigest()
            restore({"weights.safetensors": content}, recorded)
            engine = "torch"
        described = manifest.read(model)
        for name in ("classes", "metrics", "plans", "ladder", "latencies", "files"):
            getattr(described, name)
        slimdet.Runtime(model, engine=engine, width=0.25, threads=1)(image)
        return "ran"

    return case


def images(folder: Path) -> Callable[[int], str]:
    """Images of all formats, damaged."""
    from PIL import Image

    from slimdet.images.decoding import FORMATS, image_size, read_image

    random.seed(0)
    picture = Image.effect_noise((97, 61), 60).convert("RGB")
    seeds = []
    for name in FORMATS:
        for options in ({}, {"progressive": True} if name == "JPEG" else {"compression": "tiff_lzw"}):
            encoded = io.BytesIO()
            picture.save(encoded, name, **(options if name in ("JPEG", "TIFF") else {}))
            seeds.append(encoded.getvalue())

    def case(number: int) -> str:
        rng = random.Random(number)
        content = flip(rng.choice(seeds), rng)
        pixels = read_image(content)
        assert pixels.shape[1::-1] == image_size(content)
        return "read"

    return case


def coco(folder: Path) -> Callable[[int], str]:
    """A small COCO set, its annotations damaged: checked, and read as a data set."""
    from PIL import Image

    from slimdet.data.check import check
    from slimdet.data.coco import CocoDataset
    from slimdet.data.summary import summary

    file = folder / "coco.json"
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 6, 20, 10], "area": 200, "iscrowd": 0}
    box["segmentation"] = [[4, 6, 24, 6, 24, 16, 4, 16]]
    runs = box | {"id": 2, "iscrowd": 1, "segmentation": {"size": [30, 40], "counts": [100, 50, 1050]}}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [box, runs],
        "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}],
    }

    def case(number: int) -> str:
        rng = random.Random(number)
        text = mutate_json(document, rng).encode()
        file.write_bytes(flip(text, rng) if rng.random() < 0.2 else text)
        faults = [str(fault) for fault in check(file, folder)]
        if not any("unreadable annotations" in fault for fault in faults):
            summary(file)
        dataset = CocoDataset(file, folder, masks=True)
        for place in range(len(dataset)):
            dataset[place]
        return "read"

    return case


KINDS = {"bundles": bundles, "images": images, "coco": coco}


# --- running them


def child(kind: str, folder: str, start: int, end: int) -> None:
    """Say the outcome of each case in a line: its number, then a word, or what was raised."""
    from slimdet.errors import SlimdetError

    said = os.fdopen(os.dup(1), "w")  # libraries may print
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    case = KINDS[kind](Path(folder))
    print(-1, "ready", file=said, flush=True)
    for number in range(start, end):
        try:
            outcome = case(number)
        except (SlimdetError, OSError) as error:
            outcome = type(error).__name__ if "\n" not in str(error) and len(str(error)) < 1000 else "long message"
        except BaseException as error:
            outcome = f"unnamed {type(error).__name__}: {str(error)[:120]!r}"
        print(number, outcome, file=said, flush=True)


def outcomes(kind: str, folder: str, count: int) -> Iterator[tuple[int, str, float]]:
    """(number, outcome, seconds) of every case."""
    at = 0
    while at < count:
        command = [sys.executable, __file__, "--child", kind, folder, str(at), str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            silent = False
            try:
                for number, outcome, seconds in _said(process):
                    silent = outcome == "nothing"
                    if number >= 0 and not silent:
                        yield number, outcome, seconds
                        at = number + 1
            finally:
                process.kill()
            if at < count:
                yield at, "hang" if silent else f"crash (exit {process.wait()})", PATIENCE
                at += 1


def _said(process: Any) -> Iterator[tuple[int, str, float]]:
    """(number, outcome, seconds) as a process says them; at the end "nothing" if it went silent."""
    pipe, text, last, patience = process.stdout.fileno(), "", time.monotonic(), 300  # to prepare
    while select.select([pipe], [], [], patience)[0]:
        more = os.read(pipe, 65536).decode()
        if not more:
            return
        *lines, text = (text + more).split("\n")
        now = time.monotonic()
        for line in lines:
            number, _, outcome = line.partition(" ")
            yield int(number), outcome, (now - last) / len(lines)
        last, patience = now, PATIENCE
    yield -1, "nothing", patience


def main(kind: str, count: str, limit: str = "600") -> None:
    began, counts, bad, slowest = time.monotonic(), Counter(), [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, outcome, seconds in outcomes(kind, folder, int(count)):
            counts[outcome.split(":")[0]] += 1
            if time.monotonic() - began > float(limit):
                break
            slowest = max(slowest, seconds)
            if outcome.startswith(("unnamed", "crash", "hang", "long")):
                bad.append({"case": number, "outcome": outcome})
                print(number, outcome, file=sys.stderr, flush=True)
    versions = {name: __import__(name).__version__ for name in ("numpy", "PIL", "onnxruntime", "openvino", "torch")}
    found = {
        "date": str(date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": versions,
        "cases": counts.total(),
        "seeds": f"0..{counts.total() - 1}",
        "outcomes": dict(counts.most_common()),
        "not named": bad,
        "slowest_s": round(slowest, 2),
        "wall_s": round(time.monotonic() - began),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main(*sys.argv[1:])
