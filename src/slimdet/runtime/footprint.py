"""How much disk and memory a width takes.

    python -m slimdet.runtime.footprint onnxruntime bundled '{"threads": 1}' 0.25 0.5

prints the bytes by which these widths make a fresh process larger. In a process that has worked already, nothing could
be told: what one width has given back to the allocator, the next one takes again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import numpy as np

from slimdet.bundle import manifest
from slimdet.runtime.engine import Engine, EngineSettings, make

STATM = Path("/proc/self/statm")  # Linux


def footprint(engine: Engine, bundle: manifest.Manifest, options: EngineSettings) -> dict[str, dict[str, int]]:
    """Bytes on disk and in memory of every width of a bundle, and of all in one process; a second or so for each.

    Args:
        engine: tells what each width reads from disk; a file that several widths read counts once in "all".
        options: of the engine, which is made anew in each process.

    Returns:
        {"0.25": {"disk_bytes", "memory_bytes"}, ..., "all": {...}}. Memory is what is resident after one image, without
        Python and the engine's own code; absent where the system does not tell (it is not Linux).
    """
    files = {width: engine.files(width) for width in bundle.widths}
    groups = {str(width): [width] for width in bundle.widths} | {"all": list(bundle.widths)}
    sizes: dict[str, dict[str, int]] = {}
    for name, widths in groups.items():
        read = {file for width in widths for file in files[width]}
        sizes[name] = {"disk_bytes": sum(file.stat().st_size for file in read)}
        if (grown := growth(engine.name, bundle.name, options, widths)) is not None:
            sizes[name]["memory_bytes"] = grown
    return sizes


def growth(engine: str, bundle: str, options: EngineSettings, widths: Iterable[float]) -> int | None:
    """Bytes by which these widths of a bundle make a fresh process larger; None where the system does not tell.

    They run at the size, with the proposals and in the precision that `options` say, one image each.
    """
    if not STATM.exists():
        return None
    start = [sys.executable, "-m", "slimdet.runtime.footprint", engine, bundle, json.dumps(asdict(options))]
    told = subprocess.run([*start, *map(str, widths)], capture_output=True, check=True, text=True).stdout
    return int(told.split()[-1])


def _resident() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(name: str, bundle: str, options: str, *widths: str) -> None:
    """Load the widths, run each once, print the growth in bytes."""
    import_module(f"slimdet.runtime.{name}_engine")
    before = _resident()
    engine = make(name, manifest.read(bundle), EngineSettings(**json.loads(options)))
    sessions = [engine.load(float(width)) for width in widths]
    for session in sessions:
        session(np.zeros((1, session.sides[0], session.sides[0], 3), dtype=np.uint8))
    print(_resident() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
