"""How much disk and memory a width takes, and all of them in one process.

    python -m slimdet.runtime.footprint onnxruntime bundled '{"threads": 1}' 0.25 0.5

prints, as JSON, the bytes by which these widths make a fresh process larger, and how long each takes there. In a
process that has worked already, nothing could be told: what one width has given back to the allocator, the next one
takes again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from slimdet.bundle import manifest
from slimdet.errors import ConfigError
from slimdet.runtime.engine import Engine, EngineSettings, Memory, make
from slimdet.runtime.latency import latencies

STATM = Path("/proc/self/statm")  # Linux
REPEATS = 5  # timed runs of each width
MODES: tuple[Memory, ...] = ("fast", "low")


def footprint(engine: Engine, bundle: manifest.Manifest, options: EngineSettings) -> dict[str, dict[str, int]]:
    """Bytes on disk and in memory of every width of a bundle; a second or so for each.

    Args:
        engine: tells what each width reads from disk.
        options: of the engine, which is made anew in each process.

    Returns:
        {"0.25": {"disk_bytes", "memory_bytes"}, ...}. Memory is what is resident after some images, without Python and
        the engine's own code; absent where the system does not tell (it is not Linux).
    """
    measured = {width: _measured(engine, bundle, options, [width]) for width in bundle.widths}
    return {str(width): {key: one[key] for key in one if key != "latency_ms"} for width, one in measured.items()}


def together(bundle: manifest.Manifest, options: EngineSettings) -> dict[Memory, dict[str, Any]]:
    """Bytes of all widths in one process, and how long each takes there, in every mode of memory that can be had.

    Args:
        options: of the engine, "auto" excluded.

    Returns:
        {"fast": {"disk_bytes", "memory_bytes", "latency_ms": {"0.25": ...}}, "low": ...}, as for `footprint`; a file
        that several widths read counts once.
    """
    found: dict[Memory, dict[str, Any]] = {}
    for mode in MODES:
        own = replace(options, memory=mode)
        try:
            found[mode] = _measured(make(options.engine, bundle, own), bundle, own, bundle.widths)
        except ConfigError:  # not of this engine, or not of these files
            continue
    return found


def _measured(
    engine: Engine, bundle: manifest.Manifest, options: EngineSettings, widths: Sequence[float]
) -> dict[str, Any]:
    read = {file for width in widths for file in engine.files(width)}
    told = _in_a_process(engine.name, bundle.name, options, widths)
    return {"disk_bytes": sum(file.stat().st_size for file in read), **told}


def growth(engine: str, bundle: str, options: EngineSettings, widths: Iterable[float]) -> int | None:
    """Bytes by which these widths of a bundle make a fresh process larger; None where the system does not tell.

    They run at the size, with the proposals and in the precision that `options` say.
    """
    return _in_a_process(engine, bundle, options, widths).get("memory_bytes")


def _in_a_process(engine: str, bundle: str, options: EngineSettings, widths: Iterable[float]) -> dict[str, Any]:
    start = [sys.executable, "-m", "slimdet.runtime.footprint", engine, bundle, json.dumps(asdict(options))]
    told = subprocess.run([*start, *map(str, widths)], capture_output=True, check=True, text=True).stdout
    return json.loads(told.splitlines()[-1])


def _resident() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(name: str, bundle: str, options: str, *widths: str) -> None:
    """Load the widths, run them in turns, print the growth in bytes and the median of each in milliseconds."""
    import_module(f"slimdet.runtime.{name}_engine")
    before = _resident() if STATM.exists() else None
    engine = make(name, manifest.read(bundle), EngineSettings(**json.loads(options)))
    calls = {}
    for width in widths:
        session = engine.load(float(width))
        calls[width] = partial(session, np.zeros((1, session.sides[0], session.sides[0], 3), dtype=np.uint8))
    took = {width: median(runs) for width, runs in latencies(calls, REPEATS).items()}
    grown = {} if before is None else {"memory_bytes": _resident() - before}
    print(json.dumps({**grown, "latency_ms": took}))


if __name__ == "__main__":
    main(*sys.argv[1:])
