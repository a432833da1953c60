"""What disturbed a measurement: a quota, a hypervisor, heat, other processes.

Linux counts them; they are read before and after. What a machine does not tell is None, and none of it is guessed.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

STOLEN = 1.0  # percent of the time: less is the clock's own inaccuracy
BUSY = 5.0  # percent of the cores' time that other processes may take before readers are warned
ROOT = Path("/")


@dataclass(frozen=True)
class Counters:
    """Totals up to a moment.

    Attributes:
        quota_ms: that the control group's processes were held back in, as they had used up their share.
        steal_ms, busy_ms, all_ms: of the machine's cores together: that a hypervisor gave to others, that they
            worked, that went by.
        heat: how often cores were slowed down for heat.
        own_ms: that this process worked.
    """

    quota_ms: float | None
    steal_ms: float | None
    busy_ms: float | None
    all_ms: float | None
    heat: int | None
    own_ms: float


@dataclass(frozen=True)
class Disturbance:
    """What happened while something was timed.

    Attributes:
        throttled: "yes" where a quota, a hypervisor (more than 1 % of the time) or heat took time away; "no" where
            those that can be told did not; "unknown" where none can be told.
        watched: those that can be told, as "quota, steal, heat".
        quota_ms, heat: as `Counters` has them.
        steal_percent: of the cores' time, that a hypervisor gave to others.
        others_percent: of the machine's cores' time, that other processes worked.
    """

    throttled: Literal["yes", "no", "unknown"]
    watched: str
    quota_ms: float | None
    steal_percent: float | None
    heat: int | None
    others_percent: float | None


def counters(root: Path = ROOT) -> Counters:
    """The totals of now; `root` is the folder that has /proc and /sys."""
    steal, busy, whole = _cores(root) or (None,) * 3
    return Counters(_quota_ms(root), steal, busy, whole, _heat(root), 1000 * time.process_time())


def between(before: Counters, after: Counters) -> Disturbance:
    """What happened between two moments."""

    def grown(name: str) -> float | None:
        first, last = getattr(before, name), getattr(after, name)
        return None if first is None or last is None else last - first

    whole = grown("all_ms")

    def percent(part: float | None) -> float | None:
        return None if part is None or not whole else round(max(0.0, 100 * part / whole), 2)

    quota, heat, busy = grown("quota_ms"), grown("heat"), grown("busy_ms")
    steal = percent(grown("steal_ms"))
    told = {"quota": quota, "steal": steal, "heat": heat}
    watched = [name for name, value in told.items() if value is not None]
    bad = (quota or 0) > 0 or (steal or 0) > STOLEN or (heat or 0) > 0
    others = percent(None if busy is None else busy - (after.own_ms - before.own_ms))
    whether = "yes" if bad else "no" if watched else "unknown"
    return Disturbance(whether, ", ".join(watched), quota, steal, None if heat is None else int(heat), others)


def _quota_ms(root: Path) -> float | None:
    """Of version 2 of control groups in microseconds, of version 1 in nanoseconds."""
    for file in _groups(root):
        with suppress(OSError, ValueError):
            numbers = {name: int(value) for name, value in map(str.split, file.read_text().splitlines())}
            for name, unit in (("throttled_usec", 1e3), ("throttled_time", 1e6)):
                if name in numbers:
                    return numbers[name] / unit
    return None


def _groups(root: Path) -> Iterator[Path]:
    """Where this process's control group may count: /proc/self/cgroup has number:controllers:path in each line."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                folder = root / "sys/fs/cgroup" / controllers
                yield folder / path.strip("/") / "cpu.stat"
                yield folder / "cpu.stat"  # in a container the path may be the host's


def _cores(root: Path) -> tuple[float, float, float] | None:
    """Milliseconds that were stolen, that were worked, and all, of all cores."""
    with suppress(OSError, ValueError, IndexError):
        user, nice, system, idle, waiting, *interrupts, stolen = map(
            int, (root / "proc/stat").read_text().splitlines()[0].split()[1:9]
        )
        busy = user + nice + system + sum(interrupts)
        tick = 1000 / os.sysconf("SC_CLK_TCK")
        return stolen * tick, busy * tick, (busy + idle + waiting + stolen) * tick
    return None


def _heat(root: Path) -> int | None:
    counts = []
    for file in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count"):
        with suppress(OSError, ValueError):
            counts.append(int(file.read_text()))
    return sum(counts) if counts else None
