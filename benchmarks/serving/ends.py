"""How the server ends, and what it keeps: SIGTERM under load again and again, overload for a while, memory by workers.

    python benchmarks/serving/ends.py [--model bundled] [--times 20] [--seconds 120] [--out FILE]

* SIGTERM: so many servers are each stopped while eight clients send, every request on a connection of its own. Lost is
  what was connected and not answered; a connection that is refused was never accepted.
* Overload: clients send as fast as they are answered, so that most are refused; PSS of the server and its worker at a
  tenth of the time and at the end.
* Memory: PSS of the server and of all workers, with 1, 2 and 4 workers that have each run all points, in both modes of
  memory. Linux only.
"""

import argparse
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from servers import served

from slimdet.assets import PHOTOGRAPHS
from slimdet.devices import cores, cpu_name

CLIENTS = 8


def request(port: int, image: bytes, query: str) -> int:
    """The status of one request; 0 where it was lost, -1 where nobody took it."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    except OSError:
        return -1
    head = f"POST /v1/detect?{query} HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\n"
    head += f"content-length: {len(image)}\r\n\r\n"
    try:
        with connection:
            connection.sendall(head.encode() + image)
            return int(connection.recv(12)[9:] or 0)
    except OSError:
        return 0


def clients(port: int, query: str, fates: Counter[int], until: threading.Event) -> list[threading.Thread]:
    image = (PHOTOGRAPHS / "tabby.jpg").read_bytes()

    def send() -> None:
        while not until.is_set():
            fate = request(port, image, query)
            fates[fate] += 1
            if fate == -1:
                return

    threads = [threading.Thread(target=send) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    return threads


def stopped(model: str, times: int) -> dict[str, int]:
    fates: Counter[int] = Counter()
    for turn in range(times):
        with served(model) as (process, port):
            threads = clients(port, "deadline_ms=300", fates, threading.Event())
            time.sleep(0.5 + 0.05 * turn)
            process.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join()
            process.wait()
    return {"answered": fates[200], "refused": fates[503], "lost": fates[0], "never accepted": fates[-1]}


def pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def workers(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def overloaded(model: str, seconds: float) -> dict[str, Any]:
    fates: Counter[int] = Counter()
    with served(model) as (process, port):
        end = threading.Event()
        threads = clients(port, "deadline_ms=100", fates, end)
        sizes = []
        for part in (0.1, 0.9):
            time.sleep(part * seconds)
            sizes.append(sum(map(pss, (process.pid, *workers(process.pid)))))
        end.set()
        for thread in threads:
            thread.join()
    return {
        "statuses": dict(fates),
        "early_bytes": sizes[0],
        "late_bytes": sizes[1],
        "growth": round(sizes[1] / sizes[0] - 1, 4),
    }


def memory(model: str, mode: str) -> dict[str, dict[str, int]]:
    found = {}
    image = (PHOTOGRAPHS / "tabby.jpg").read_bytes()
    for count in (1, 2, 4):
        with served(model, "--workers", str(count), "--memory", mode) as (process, port):
            while json.load(urlopen(f"http://127.0.0.1:{port}/v1/status"))["workers"] < count:
                time.sleep(0.2)
            for _ in range(10):
                request(port, image, "deadline_ms=10000")
            found[str(count)] = {"server": pss(process.pid), "workers": sum(map(pss, workers(process.pid)))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    document = {
        "machine": f"{cpu_name()}, {cores()} cores, in use by others too",
        "sigterm": {"times": options.times, **stopped(options.model, options.times)},
        "overload": {"seconds": options.seconds, **overloaded(options.model, options.seconds)},
        "pss_bytes_by_workers": {mode: memory(options.model, mode) for mode in ("fast", "low")},
    }
    text = json.dumps(document, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
