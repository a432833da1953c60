"""How much disk and memory a width takes.

    python -m slimdet.runtime.footprint '{"name": "onnxruntime", "bundle": "bundled", ...}' 0.25 0.5

prints the bytes by which these widths make a fresh process larger. In a process that has worked already, nothing could
be told: what one width has given back to the allocator, the next one takes again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.bundle import manifest
from slimdet.runtime.engines import make

STATM = Path("/proc/self/statm")  # Linux


def footprint(settings: Mapping[str, Any], files: Mapping[float, Iterable[Path]]) -> dict[str, dict[str, int]]:
    """Bytes on disk and in memory of every width, and of all in one process; takes a second or so for each.

    Args:
        settings: arguments of `slimdet.runtime.engines.make`, the bundle by its name.
        files: what each width reads from disk; a file that several widths read counts once in "all".

    Returns:
        {"0.25": {"disk_bytes", "memory_bytes"}, ..., "all": {...}}. Memory is what is resident after one image, without
        Python and the engine's own code; absent where the system does not tell (it is not Linux).
    """
    groups = {str(width): [width] for width in files} | {"all": list(files)}
    sizes: dict[str, dict[str, int]] = {}
    for name, widths in groups.items():
        read = {file for width in widths for file in files[width]}
        sizes[name] = {"disk_bytes": sum(file.stat().st_size for file in read)}
        if STATM.exists():
            sizes[name]["memory_bytes"] = _measured(settings, widths)
    return sizes


def _measured(settings: Mapping[str, Any], widths: Iterable[float]) -> int:
    command = [sys.executable, "-m", "slimdet.runtime.footprint", json.dumps(settings), *map(str, widths)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()[-1])


def _resident() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(settings: str, *widths: str) -> None:
    """Load the widths, run each once, print the growth in bytes."""
    options = json.loads(settings)
    import_module(f"slimdet.runtime.{options['name']}_engine")
    before = _resident()
    engine = make(**options | {"bundle": manifest.read(options["bundle"])})
    sessions = [engine.load(float(width)) for width in widths]
    for session in sessions:
        session(np.zeros((1, session.sides[0], session.sides[0], 3), dtype=np.uint8))
    print(_resident() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
