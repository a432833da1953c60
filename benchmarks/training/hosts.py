"""Training on several machines, which are network namespaces here: joined by a bridge, each with its own address.

    sudo python benchmarks/training/hosts.py

Three runs of one small training: in one process; on two hosts of one process each, started by torchrun; and again on
two hosts, one of which loses its process by SIGKILL. Written to hosts.json: how far the weights of two hosts are from
those of one process, and after how many seconds all had ended.

Needs root and `ip` (iproute2); the namespaces and the bridge are removed at the end.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from slimdet.training.safety.checkpoint import CHECKPOINT

RESULT = Path(__file__).with_suffix(".json")
BRIDGE = "slimdet-br"
HOSTS = {"slimdet-a": "10.77.0.1", "slimdet-b": "10.77.0.2"}
PORT = 29500
FLAGS = """
    --recipe paper --backbone resnet18 --neck light --weights none --imgsz 64 --batch 4 --widths 0.5,1.0 --device cpu
    --no-evaluate --freeze-backbone-norm --head-norm group --save-every 0.001
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def network() -> Iterator[None]:
    """Two hosts on one bridge."""
    ip("link", "add", BRIDGE, "type", "bridge")
    try:
        ip("link", "set", BRIDGE, "up")
        for host, address in HOSTS.items():
            ip("netns", "add", host)
            ip("link", "add", f"{host}-x", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("link", "set", f"{host}-x", "master", BRIDGE, "up")
            for words in (("addr", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
                ip("-n", host, *words)
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False)


def pictures(folder: Path) -> Path:
    """A data set of six noisy pictures with a rectangle each; its DATA.yaml."""
    draw = np.random.default_rng(0)
    coco: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "box"}]}
    for number in range(1, 7):
        pixels = draw.integers(0, 60, (72, 96, 3), dtype=np.uint8)
        x, y, side = (int(value) for value in (*draw.integers(0, 40, 2), draw.integers(20, 32)))
        pixels[y : y + side, x : x + side] = (230, 40, 40)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        coco["images"].append({"id": number, "file_name": f"{number}.png", "height": 72, "width": 96})
        box = {"bbox": [x, y, side, side], "area": side * side, "iscrowd": 0, "category_id": 1}
        coco["annotations"].append(box | {"id": number, "image_id": number})
    (folder / "annotations.json").write_text(json.dumps(coco))
    (folder / "data.yaml").write_text("train: {images: ., annotations: annotations.json}\n")
    return folder / "data.yaml"


def start(host: str, train: Sequence[str]) -> subprocess.Popen[bytes]:
    """torchrun on one of the hosts."""
    words = f"--nnodes=2 --nproc_per_node=1 --master_addr={HOSTS['slimdet-a']} --master_port={PORT}"
    rank = [*HOSTS].index(host)
    torchrun = [sys.executable, "-m", "torch.distributed.run", *words.split(), f"--node_rank={rank}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
    return subprocess.Popen(["ip", "netns", "exec", host, *torchrun, "-m", *train], env=environment)


def descendants(process: int) -> list[int]:
    """A process's children, theirs and so on; the last one is the training of a torchrun with one process."""
    children = [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return children + [deeper for child in children for deeper in descendants(child)]


def wait_for(file: Path, hosts: Sequence[subprocess.Popen[bytes]]) -> None:
    while not file.exists():
        if any(host.poll() is not None for host in hosts):
            sys.exit("a host ended before the first checkpoint")
        time.sleep(0.02)


def distance(one: Path, other: Path) -> float:
    """The largest difference of two runs' weights."""
    first, second = (torch.load(run / CHECKPOINT, weights_only=True)["model"] for run in (one, other))
    return max(float((value.double() - second[name].double()).abs().max()) for name, value in first.items())


def main() -> None:
    with tempfile.TemporaryDirectory() as place, network():
        folder = Path(place)
        train = ["slimdet", "train", "--data", str(pictures(folder)), *FLAGS.split()]
        short, long = [*train, "--epochs", "1"], [*train, "--epochs", "50"]
        subprocess.run([sys.executable, "-m", *short, "--out", str(folder / "one")], check=True)

        hosts = [start(host, [*short, "--out", str(folder / "two")]) for host in HOSTS]
        codes = [host.wait(timeout=600) for host in hosts]

        victims = [start(host, [*long, "--out", str(folder / "killed")]) for host in HOSTS]
        wait_for(folder / "killed" / CHECKPOINT, victims)
        os.kill(descendants(victims[1].pid)[-1], signal.SIGKILL)
        killed = time.monotonic()
        ends = [host.wait(timeout=600) for host in victims]
        result = {
            "hosts": len(HOSTS),
            "exit_codes": codes,
            "largest_difference_of_weights": distance(folder / "one", folder / "two"),
            "seconds_until_all_ended_after_a_kill": round(time.monotonic() - killed, 1),
            "exit_codes_after_a_kill": ends,
            "torch": torch.__version__,
        }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
