"""A long run of `slimdet serve`: attainment, accuracy and memory, minute by minute.

    python benchmarks/serving/sustained.py [--times 2] [--of dearest|cheapest] [--minutes 30] [--out FILE]

Poisson arrivals at a multiple of what the dearest, or the cheapest, point can do, open-loop as in load.py; the server
chooses the points and has one worker. The deadline is twice the idle median of the dearest point. PSS is that of server
and worker. Where there are two cores or more, the server and its worker share one, and the generator has the others.
Linux only.
"""

import argparse
import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

from arrivals import poisson
from ends import pss, workers
from load import IDLE, LONG_MS, Client, figures, status
from servers import served

from slimdet.assets import VAL
from slimdet.devices import cpu_name

MINUTE = 60.0


async def idle_ms(client: Client, point: int) -> float:
    found = []
    for number in range(IDLE):
        began = time.perf_counter()
        await client.post(number, f"point={point}&deadline_ms={LONG_MS}")
        found.append(1000 * (time.perf_counter() - began))
    return median(found)


async def measure(given: argparse.Namespace, port: int, pid: int) -> dict[str, Any]:
    client = Client(port, [file.read_bytes() for file in sorted((VAL / "images").glob("*.jpg"))])
    ladder = status(port)["ladder"]
    dearest, cheapest = [await idle_ms(client, point) for point in (len(ladder) - 1, 0)]
    rate = given.times * 1000 / (dearest if given.of == "dearest" else cheapest)
    deadline = round(2 * dearest)
    document: dict[str, Any] = {"idle_ms": {"dearest": round(dearest, 1), "cheapest": round(cheapest, 1)}}
    document |= {"requests_per_s": round(rate, 1), "deadline_ms": deadline, "minutes": []}
    everything = []
    for minute in range(given.minutes):
        switches = status(port)["switches"]
        replies = await client.offer(poisson(rate, MINUTE, minute), f"deadline_ms={deadline}")
        everything += replies
        row = figures(replies, deadline) | {"switches": status(port)["switches"] - switches}
        document["minutes"].append(row | {"pss_bytes": sum(map(pss, (pid, *workers(pid))))})
        first, last = (document["minutes"][which]["pss_bytes"] for which in (0, -1))
        document |= {"all": figures(everything, deadline), "growth": round(last / first - 1, 4)}
        if given.out:
            given.out.write_text(json.dumps(document, indent=1) + "\n")
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--times", type=float, default=2)
    parser.add_argument("--of", choices=("dearest", "cheapest"), default="dearest")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    own = sorted(os.sched_getaffinity(0))
    machine = f"{cpu_name()}, {len(own)} cores, in use by others too"
    with served(given.model, core=own[0] if len(own) > 1 else None) as (process, port):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, set(own[1:]) or set(own))
        found = asyncio.run(measure(given, port, process.pid))
    load = f"x{given.times:g} what the {given.of} point can do"
    text = json.dumps({"machine": machine, "load": load} | found, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
