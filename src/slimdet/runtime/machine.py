"""What latencies belong to: a processor, an engine and its settings."""

from importlib import import_module

from slimdet.devices import cores, cpu_name
from slimdet.runtime.engine import Engine


def versions(engine: Engine) -> dict[str, str]:
    """Of the library that runs: {"onnxruntime": "1.23.2"}."""
    return {engine.name: str(import_module(engine.name).__version__).split("-")[0]}  # OpenVINO's goes on with a build


def machine_key(engine: Engine, threads: int | None) -> str:
    """A name for what latencies are true of, as "AMD EPYC 7B13, 4 cores, onnxruntime 1.23.2 on cpu, 1 thread".

    Args:
        engine: what runs.
        threads: of one run; None is the engine's own choice.
    """
    count = "its own threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}"
    version = versions(engine)[engine.name]
    return f"{cpu_name()}, {cores()} cores, {engine.name} {version} on {engine.device}, {count}"
