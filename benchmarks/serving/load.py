"""Load on `slimdet serve`: the server's own choice of points against fixed ones, and against a queue at full width.

    python benchmarks/serving/load.py [--model bundled] [--seconds 20] [--trace AZURE.txt] [--out FILE] [--plot FILE]

The generator is open-loop: a request is sent when it is due, whether or not others were answered, and its latency
counts from when it was due; how late the generator itself was is told. Arrivals come from a seed, so that all ways of
serving meet the same ones. The deadline is twice the median of the dearest point with nothing else asked; rates are
multiples of what the dearest point can do. Attainment is what was answered within the deadline of all that arrived: a
refusal is a miss.

* auto: the server chooses.
* point N: the cheapest, the middle and the dearest rung for every request; the server refuses what would be late.
* queue: the dearest for every request, and nothing is refused.

The server has one worker. Where there are two cores or more, the server and its worker share one, and the generator has
the others.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any
from urllib.request import urlopen

import numpy as np
from arrivals import azure, flash_crowd, gamma, poisson, ramp, step
from servers import served

from slimdet.assets import VAL
from slimdet.devices import cpu_name

IDLE = 40  # requests that tell the deadline
LONG_MS = 60_000


@dataclass(frozen=True)
class Reply:
    """A request's fate: when it was due, how late it was sent, its status and latency, and the point that answered."""

    due_s: float
    lag_ms: float
    status: int
    ms: float
    rung: int | None = None
    ap: float | None = None


class Client:
    """Requests over HTTP/1.1, on connections that are kept; the least that does it, for it shares the machine."""

    def __init__(self, port: int, images: Sequence[bytes]) -> None:
        self.port, self.images = port, images
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, number: int, query: str) -> tuple[int, dict[str, Any]]:
        """The status and the answer; 0 where the connection broke."""
        image = self.images[number % len(self.images)]
        head = (
            f"POST /v1/detect?{query} HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\n"
            f"content-length: {len(image)}\r\n\r\n"
        )
        while True:  # a connection that was kept may have been closed meanwhile
            kept = bool(self._free)
            try:
                connection = self._free.pop() if kept else await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = connection
                writer.write(head.encode() + image)
                answer = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"content-length: (\d+)", answer, re.I)
                body = await reader.readexactly(int(length[1]) if length else 0)
                break
            except (OSError, asyncio.IncompleteReadError):
                if not kept:
                    return 0, {}
        self._free.append(connection)
        return int(answer.split(" ", 2)[1]), json.loads(body)

    async def offer(self, arrivals: Sequence[float], query: str) -> list[Reply]:
        """Send each request when it is due; all replies, by when they were due."""
        begin = time.perf_counter()

        async def one(number: int, due: float) -> Reply:
            sent = time.perf_counter() - begin
            status, answer = await self.post(number, query)
            ms = 1000 * (time.perf_counter() - begin - due)
            return Reply(due, 1000 * (sent - due), status, ms, answer.get("rung"), answer.get("AP"))

        tasks = []
        for number, due in enumerate(arrivals):
            await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
            tasks.append(asyncio.ensure_future(one(number, due)))
        return list(await asyncio.gather(*tasks))


def figures(replies: Sequence[Reply], deadline_ms: float) -> dict[str, Any]:
    """What became of all requests of a run."""
    answered = [one for one in replies if one.status == 200]
    in_time = [one for one in answered if one.ms <= deadline_ms]
    refused = [one.ms for one in replies if one.status == 503]
    ms = [one.ms for one in answered] or [0.0]
    return {
        "requests": len(replies),
        "attainment": round(len(in_time) / len(replies), 4),
        "mean_AP": round(fmean(one.ap or 0.0 for one in answered), 4) if answered else None,
        "p50_ms": round(float(np.quantile(ms, 0.5)), 1),
        "p95_ms": round(float(np.quantile(ms, 0.95)), 1),
        "p99_ms": round(float(np.quantile(ms, 0.99)), 1),
        "late": len(answered) - len(in_time),
        "refused": len(refused),
        "refused_p99_ms": round(float(np.quantile(refused, 0.99)), 1) if refused else None,
        "broken": sum(one.status not in (200, 503) for one in replies),
        "lag_p99_ms": round(float(np.quantile([one.lag_ms for one in replies], 0.99)), 1),
    }


def shapes(full: float, seconds: float, trace: Path | None) -> dict[str, list[float]]:
    """Arrivals by name; `full` is what the dearest point can do in a second."""
    found = {f"poisson x{times:g}": poisson(times * full, seconds, 0) for times in (0.5, 1, 2, 3)}
    found |= {f"gamma CV2={cv2} x1": gamma(full, cv2, seconds, 0) for cv2 in (2, 4, 8)}
    found |= {
        "step x0.5-x2-x0.5": poisson(step(0.5 * full, 2 * full, seconds), seconds, 0),
        "ramp x0.5-x3-x0.5": poisson(ramp(0.5 * full, 3 * full, seconds), seconds, 0),
        "flash crowd x0.5-x6": poisson(flash_crowd(0.5 * full, 6 * full, seconds), seconds, 0),
        "overload x10": poisson(10 * full, seconds, 0),
    }
    if trace:
        with trace.open() as lines:
            found["Azure 2021 x1"] = azure(lines, full, seconds)
    return found


def status(port: int) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{port}/v1/status") as reply:
        return json.load(reply)


async def measure(options: argparse.Namespace, port: int) -> tuple[dict[str, Any], dict[str, dict[str, list[Reply]]]]:
    """All runs: the result, and every reply by shape and way of serving."""
    images = [file.read_bytes() for file in sorted((VAL / "images").glob("*.jpg"))]
    client, ladder = Client(port, images), status(port)["ladder"]
    last = len(ladder) - 1
    idle = []
    for number in range(IDLE):
        begin = time.perf_counter()
        await client.post(number, f"point={last}&deadline_ms={LONG_MS}")
        idle.append(1000 * (time.perf_counter() - begin))
    usual = median(idle)
    deadline, full = round(2 * usual), 1000 / usual
    ways = {"auto": f"deadline_ms={deadline}"}
    ways |= {f"point {rung}": f"point={rung}&deadline_ms={deadline}" for rung in sorted({0, last // 2, last})}
    ways["queue"] = f"point={last}&deadline_ms={LONG_MS}"
    result: dict[str, Any] = {"idle_full_ms": round(usual, 1), "deadline_ms": deadline, "ladder": ladder, "shapes": {}}
    replies: dict[str, dict[str, list[Reply]]] = {}
    for shape, arrivals in shapes(full, options.seconds, options.trace).items():
        rows, replies[shape] = {}, {}
        for way, query in ways.items():
            before = status(port)["switches"]
            replies[shape][way] = await client.offer(arrivals, query)
            rows[way] = figures(replies[shape][way], deadline) | {"switches": status(port)["switches"] - before}
            print(shape, way, rows[way], file=sys.stderr)
        result["shapes"][shape] = rows
    return result, replies


def plot(replies: dict[str, dict[str, list[Reply]]], deadline: float, file: Path) -> None:
    """Load, point and latency over time, of the server's own choice and of the queue at full width."""
    import matplotlib.pyplot as plt

    shown = [shape for shape in replies if shape.startswith(("step", "flash", "ramp"))]
    figure, axes = plt.subplots(3, len(shown), figsize=(4.5 * len(shown), 7), sharex="col", squeeze=False)
    for column, shape in zip(axes.T, shown, strict=True):
        auto, queue = replies[shape]["auto"], replies[shape]["queue"]
        counts, edges = np.histogram([one.due_s for one in auto], bins=np.arange(0, auto[-1].due_s + 1, 0.5))
        column[0].step(edges[:-1], 2 * counts, where="post", color="0.3")
        column[0].set_title(shape)
        answered = [one for one in auto if one.status == 200 and one.rung is not None]
        column[1].plot([one.due_s for one in answered], [one.rung for one in answered], ".", ms=3, color="tab:blue")
        for name, some, color in (("queue at full width", queue, "tab:orange"), ("auto", auto, "tab:blue")):
            good = [one for one in some if one.status == 200]
            column[2].plot([one.due_s for one in good], [one.ms for one in good], ".", ms=3, color=color, label=name)
        refused = [one.due_s for one in auto if one.status == 503]
        column[2].plot(refused, [deadline] * len(refused), "x", ms=5, color="tab:red", label="refused by auto")
        column[2].axhline(deadline, color="0.3", lw=0.8, ls="--")
        column[2].set_yscale("log")
        column[2].set_xlabel("seconds")
    for axis, label in zip(axes[:, 0], ("requests a second", "rung", "latency, ms"), strict=True):
        axis.set_ylabel(label)
    axes[2, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    own = sorted(os.sched_getaffinity(0))
    with served(options.model, core=own[0] if len(own) > 1 else None) as (_, port):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, set(own[1:]) or set(own))
        result, replies = asyncio.run(measure(options, port))
    machine = {"machine": f"{cpu_name()}, {len(own)} cores", "server": "core 0", "generator": "the others"}
    note = "other work on the machine was not under control: compare within a shape"
    document = {**machine, "note": note, "model": options.model, "seconds": options.seconds, **result}
    text = json.dumps(document, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    if options.plot:
        plot(replies, result["deadline_ms"], options.plot)


if __name__ == "__main__":
    main()
