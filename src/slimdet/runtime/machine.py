"""What latencies belong to: a processor, an engine and its settings."""

from importlib import import_module
from importlib.util import find_spec

from slimdet.bundle.ladder import Latencies, Point
from slimdet.bundle.manifest import Manifest
from slimdet.devices import cores, cpu_name
from slimdet.runtime.engine import Engine, EngineSettings


def versions(engine: Engine) -> dict[str, str]:
    """Of the library that runs: {"onnxruntime": "1.23.2"}."""
    return {engine.name: _version(engine.name)}


def machine_key(engine: Engine, threads: int | None) -> str:
    """A name for what latencies are true of, as "AMD EPYC 7B13, 4 cores, onnxruntime 1.23.2 on cpu, 1 thread".

    Args:
        engine: what runs.
        threads: of one run; None is the engine's own choice.
    """
    return _key(engine.name, engine.device, threads)


def known_ms(bundle: Manifest, engine: Engine, options: EngineSettings) -> dict[Point, float]:
    """Milliseconds of points, as the bundle has them of this machine, this engine and the threads of each width."""
    keys = {width: machine_key(engine, options.threads_of(width)) for width in bundle.widths}
    medians = {key: one.medians for key, one in bundle.latencies.items()}
    return {
        point: ms for width, key in keys.items() for point, ms in medians.get(key, {}).items() if point.width == width
    }


def is_here(machine: str, latencies: Latencies) -> bool:
    """Whether latencies that a bundle has under this name are true of this machine, with what is installed."""
    if find_spec(latencies.engine) is None:
        return False
    return machine == _key(latencies.engine, latencies.device, latencies.threads)


def _key(engine: str, device: str, threads: int | None) -> str:
    count = "its own threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}"
    return f"{cpu_name()}, {cores()} cores, {engine} {_version(engine)} on {device}, {count}"


def _version(library: str) -> str:
    return str(import_module(library).__version__).split("-")[0]  # OpenVINO's goes on with a build
