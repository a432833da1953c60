"""Latency of peers and of slimdet in one interleaved run.

    python benchmarks/peers/latency.py [--rounds 9] [--threads 1 all] [--only R50 YOLO] [--work runs/peers]

Every round is a line of latency.jsonl: a turn of each contender in an order of the round's own. Run it again and it
goes on where it stopped; when slimdet's code or the benchmark's has changed, it begins anew, and old lines stay.
table.py makes the tables from the last complete run.
"""

import argparse
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import others
import ours
import timing
import torch
from PIL import Image
from timing import Contender, machine, one_round

from slimdet.assets import PHOTOGRAPHS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROWS = HERE / "latency.jsonl"


def code() -> dict[str, str]:
    """The commit that last changed slimdet, and a digest of its and of the benchmark's files as they are."""
    last = ["git", "log", "-1", "--format=%h", "--", "src/slimdet"]
    commit = subprocess.run(last, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    own = [Path(str(module.__file__)) for module in (graphs, others, ours, timing)]
    files = [*sorted((ROOT / "src" / "slimdet").rglob("*.py")), *own, Path(__file__)]
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:10]
    return {"commit": commit, "code": digest}


def photograph(side: int) -> np.ndarray:
    """A shipped photograph as a square, uint8 [side, side, 3]."""
    with Image.open(PHOTOGRAPHS / "horses.jpg") as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)).copy()


def read_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def append(row: Mapping[str, Any]) -> None:
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def measure(contenders: Sequence[Contender], threads: int, rounds: int, key: Mapping[str, Any]) -> None:
    """Run the rounds that are not there yet."""
    done = {row["round"] for row in read_rows() if _is_of(row, {**key, "what": "round", "threads": threads})}
    torch.set_num_threads(threads)
    for number in sorted(set(range(rounds)) - done):
        start, load = time.perf_counter(), os.getloadavg()[0]
        found = one_round(contenders, threads, number)
        ms = {name: [round(value, 3) for value in found[name]] for name in sorted(found)}
        append({"what": "round", **key, "threads": threads, "round": number, "load": round(load, 2), "ms": ms})
        print(f"threads {threads}, round {number + 1} of {rounds}: {time.perf_counter() - start:.0f} s", flush=True)


def measure_shares(folder: Path, photographs: Mapping[int, np.ndarray], key: Mapping[str, Any]) -> None:
    """What of a graph's time at the narrowest width is not convolutions and linears, one thread."""
    width = ours.WIDTHS[0]
    for model in ours.models(folder):
        row = {"what": "share", **key, "model": model.name, "image": model.image, "width": width}
        if any(_is_of(known, row) for known in read_rows()):
            continue
        file, inputs = model.graph(width), {"images": photographs[model.image][None]}
        kinds = {"onnxruntime": graphs.onnx_times(file, inputs), "openvino": graphs.openvino_times(file, inputs)}
        rest = {engine: round(graphs.rest(ms), 4) for engine, ms in kinds.items()}
        rounded = {engine: {kind: round(ms, 3) for kind, ms in by.items() if ms} for engine, by in kinds.items()}
        append({**row, "rest": rest, "ms": rounded})
        print(f"{model.name} {width}, {model.image} px: all but convolutions and linears {rest}", flush=True)


def _is_of(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(row.get(name) == value for name, value in wanted.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", nargs="+", default=["1", "all"])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names; the default is all")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "peers", help="where graphs and bundles lie")
    given = parser.parse_args()
    photographs = {side: photograph(side) for side in others.SIZES}
    place, version = machine(), code()
    folder = given.work / version["code"]
    contenders = [
        contender
        for contender in [
            *others.contenders(photographs, given.work / "graphs"),
            *ours.contenders(photographs, folder),
        ]
        if any(part in contender.name for part in given.only)
    ]
    described = {contender.name: contender.description for contender in contenders}
    names = hashlib.sha256(json.dumps([place, described], sort_keys=True).encode()).hexdigest()[:10]
    key = {"run": f"{version['code']}-{names}"}
    if not any(_is_of(row, {"what": "run", **key}) for row in read_rows()):
        start = {"what": "run", **key, **version, "date": time.strftime("%Y-%m-%d"), "machine": place}
        append({**start, "contenders": described})
    for threads in given.threads:
        measure(contenders, (os.cpu_count() or 1) if threads == "all" else int(threads), given.rounds, key)
    measure_shares(folder, photographs, key)


if __name__ == "__main__":
    main()
