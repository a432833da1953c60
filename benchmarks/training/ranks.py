"""What two processes gain over one: processor time of a step, and where the rest goes.

    OMP_NUM_THREADS=1 python benchmarks/training/ranks.py [--batch 8] [--rounds 5]

One process computes steps of the batch, two compute the same steps, half the images each, over gloo on this machine.
`bound` is one process's processor time by the larger of the two processes': what two free cores would gain if nobody
waited for the other. On a machine with other work the time on the clock says nothing, so it is not compared. Results go
to ranks.json.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from step import WIDTHS, made
from torch import distributed, multiprocessing, nn
from torch.distributed import FileStore  # pyright: ignore[reportPrivateImportUsage]

from slimdet.files import atomic_write
from slimdet.training.processes.distributed import Place, reduce_step, running_statistics
from slimdet.training.processes.sharing import Share
from slimdet.training.settings import TrainSettings
from slimdet.training.step import accumulate_gradients

OUT = Path(__file__).with_suffix(".json")


def work(rank: int, world: int, options: argparse.Namespace, store: str, results: Any) -> None:
    """Steps of one process; puts (rank, seconds of computing, seconds of the message)."""
    if world > 1:
        distributed.init_process_group("gloo", store=FileStore(store, world), rank=rank, world_size=world)
    model, images, targets = made(options)
    share, settings = Share(Place(rank, world, rank), len(images), 0), TrainSettings(distill=1.0)
    own = [images[place] for place in share.own], [targets[place] for place in share.own]
    parameters: list[nn.Parameter] = list(model.parameters())
    computing, message = [], []
    for _ in range(options.rounds + 1):
        model.zero_grad()
        began = time.process_time()
        losses = accumulate_gradients(model, *own, WIDTHS, settings, share=share)
        computed = time.process_time()
        numbers = [value for parts in losses.values() for value in parts.values()]
        reduce_step(share.place, parameters, running_statistics(model), share.weight, numbers)
        computing.append(computed - began)
        message.append(time.process_time() - computed)
    results.put((rank, statistics.median(computing[1:]), statistics.median(message[1:])))


def measured(world: int, options: argparse.Namespace) -> list[tuple[int, float, float]]:
    """The rows of all processes."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    store = Path(f"/tmp/ranks-{os.getpid()}-{world}")
    processes: Any = multiprocessing.spawn(  # pyright: ignore[reportPrivateImportUsage]
        work, (world, options, str(store), results), nprocs=world, join=False
    )
    rows = [results.get() for _ in range(world)]
    processes.join()
    store.unlink(missing_ok=True)
    return sorted(rows)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--imgsz", type=int, default=144)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    one, two = measured(1, options), measured(2, options)
    row = {
        **vars(options),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread, torch {torch.__version__}",
        "one_s": round(one[0][1], 3),
        "two_s": [round(computing, 3) for _, computing, _ in two],
        "message_s": [round(message, 3) for _, _, message in two],
        "bound": round(one[0][1] / max(computing + message for _, computing, message in two), 2),
    }
    with atomic_write(OUT) as temporary:
        temporary.write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
