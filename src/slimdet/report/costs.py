"""What each width of a bundle costs on an engine: the verb `profile`, without torch where the engine is another."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from slimdet.bundle import manifest
from slimdet.errors import ConfigError
from slimdet.messages import with_fields
from slimdet.report.settings import ProfileSettings
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import EngineSettings, Memory, check_precision, choose
from slimdet.runtime.footprint import footprint, together
from slimdet.runtime.latency import runtime_latencies, summary

MB = 2**20


@dataclass(frozen=True)
class Costs:
    """What each width costs, and how it was measured.

    Attributes:
        threads: of one run; None is the engine's choice.
        imgsz: side of the square picture, pixels.
        widths: {"0.25": {...}, ...} with, as far as it is known,

            - "latency_ms", "latency_spread_ms": as `slimdet.runtime.latency.summary` has them, on a picture of noise;
            - "disk_mb": the files that the width reads, in MiB;
            - "memory_mb": what the width, alone, adds to a process's resident memory, in MiB (with torch as
              `slimdet.report.profiling.profile` has it);
            - "parameters", "macs": as recorded in the bundle; with torch, as counted.
        precisions: of the layers, by width.
        all: of all widths in one process, by mode of memory, {"fast": {"disk_mb", "memory_mb", "latency_ms": {"0.25":
            ...}}, "low": ...}, the latency as measured there; empty with torch.
    """

    engine: str
    device: str
    threads: int | None
    imgsz: int | None
    repeats: int
    widths: dict[str, dict[str, float]]
    precisions: dict[str, str]
    all: dict[Memory, dict[str, Any]] = field(default_factory=dict)


def costs(model: str | Path, settings: ProfileSettings | None = None, **changes: Any) -> Costs:
    """Measure every width of a bundle.

    Args:
        model: a bundle's folder, or "bundled".
        settings: how; the default is `ProfileSettings()`.
        changes: fields of `ProfileSettings`, in place of those that `settings` has.

    Raises:
        BundleError, ConfigError: as for `Runtime`; or a number of proposals with torch.
    """
    settings = with_fields(settings or ProfileSettings(), changes)
    name = choose(settings.engine, manifest.read(model))
    if name == "torch":
        return _with_torch(model, settings)
    if settings.repeats < 1:
        raise ConfigError(f"repeats {settings.repeats} must be 1 or more")
    options = EngineSettings(**{one.name: getattr(settings, one.name) for one in fields(EngineSettings)})
    options = replace(options, engine=name)
    runtime = Runtime(model, **vars(options)).prepare()
    sizes = footprint(runtime.engine, runtime.manifest, options)
    widths: dict[str, dict[str, float]] = {}
    for width, runs in runtime_latencies(runtime, settings.repeats).items():
        recorded = runtime.manifest.metrics.get(str(width), {}).get("cost", {})
        widths[str(width)] = recorded | summary(runs) | _in_mb(sizes[str(width)])
    side, device = runtime.session(1.0).sides[0], runtime.engine.device
    precisions = {str(width): runtime.session(width).precision for width in runtime.widths}
    whole: dict[Memory, dict[str, Any]] = {
        mode: _in_mb(one) for mode, one in together(runtime.manifest, options).items()
    }
    return Costs(name, device, settings.threads, side, settings.repeats, widths, precisions, whole)


def _in_mb(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key.replace("_bytes", "_mb"): value / MB if key.endswith("_bytes") else value for key, value in sizes.items()
    }


def _with_torch(model: str | Path, settings: ProfileSettings) -> Costs:
    import torch

    from slimdet.bundle import store
    from slimdet.report import profiling

    if settings.proposals is not None:
        raise ConfigError(f"--proposals {settings.proposals}: torch is measured with the model's own; leave it out")
    check_precision(settings.precision or "fp32", ("fp32",), "torch", "engine openvino")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    found = profiling.profile(store.load(model), settings.imgsz, settings.device, settings.repeats)
    precisions = dict.fromkeys(found.widths, "fp32")
    return Costs("torch", found.device, found.threads, found.imgsz, found.repeats, found.widths, precisions)
