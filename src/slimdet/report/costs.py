"""What each width of a bundle costs on an engine: the verb `profile`, without torch where the engine is another."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimdet.bundle import manifest
from slimdet.errors import ConfigError
from slimdet.messages import with_fields
from slimdet.report.latency import runtime_latencies, summary
from slimdet.report.settings import ProfileSettings
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import choose

MB = 2**20


@dataclass(frozen=True)
class Costs:
    """What each width costs, and how it was measured.

    Attributes:
        threads: of one run; None is the engine's choice.
        imgsz: side of the square picture, pixels.
        widths: {"0.25": {...}, ...} with, as far as it is known,

            - "latency_ms", "latency_spread_ms": as `slimdet.report.latency.summary` has them, on a picture of noise;
            - "disk_mb": the files that the width reads, in MiB;
            - "memory_mb": what the width adds to a process's resident memory, in MiB (with torch as
              `slimdet.report.profiling.profile` has it);
            - "parameters", "macs": as recorded in the bundle; with torch, as counted.
        all: "disk_mb" and "memory_mb" of all widths in one process; empty with torch.
    """

    engine: str
    device: str
    threads: int | None
    imgsz: int | None
    repeats: int
    widths: dict[str, dict[str, float]]
    all: dict[str, float] = field(default_factory=dict)


def costs(model: str | Path, settings: ProfileSettings | None = None, **fields: Any) -> Costs:
    """Measure every width of a bundle.

    Args:
        model: a bundle's folder, or "bundled".
        settings: how; the default is `ProfileSettings()`.
        fields: fields of `ProfileSettings`, in place of those that `settings` has.

    Raises:
        BundleError, ConfigError: as for `Runtime`; or a number of proposals with torch.
    """
    settings = with_fields(settings or ProfileSettings(), fields)
    name = choose(settings.engine, manifest.read(model))
    if name == "torch":
        return _with_torch(model, settings)
    if settings.repeats < 1:
        raise ConfigError(f"repeats {settings.repeats} must be 1 or more")
    options = {key: getattr(settings, key) for key in ("device", "threads", "imgsz", "proposals")}
    runtime = Runtime(model, engine=name, **options).prepare()
    sizes = {
        key: {what.replace("_bytes", "_mb"): value / MB for what, value in size.items()}
        for key, size in runtime.footprint().items()
    }
    widths: dict[str, dict[str, float]] = {}
    for width, runs in runtime_latencies(runtime, settings.repeats).items():
        recorded = runtime.manifest.metrics.get(str(width), {}).get("cost", {})
        widths[str(width)] = recorded | summary(runs) | sizes[str(width)]
    side = runtime.session(1.0).sides[0]
    return Costs(name, runtime.engine.device, settings.threads, side, settings.repeats, widths, sizes["all"])


def _with_torch(model: str | Path, settings: ProfileSettings) -> Costs:
    import torch

    from slimdet.bundle import store
    from slimdet.report import profiling

    if settings.proposals is not None:
        raise ConfigError(f"--proposals {settings.proposals}: torch is measured with the model's own; leave it out")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    found = profiling.profile(store.load(model), settings.imgsz, settings.device, settings.repeats)
    return Costs("torch", found.device, found.threads, found.imgsz, found.repeats, found.widths)
