"""The command line: one function per verb, no logic. `slimdet.command` turns each into flags, help and exit codes."""

from collections.abc import Sequence
from typing import Annotated

from slimdet.command import Outcome, run
from slimdet.flags import Count, Device, Model


def profile(
    *,
    model: Annotated[Model, "bundle to measure: a folder, or 'bundled'"],
    imgsz: Annotated[Count | None, "side of the square picture, pixels (default: the model's own)"] = None,
    device: Annotated[Device, "auto, cpu, cuda, cuda:N or mps"] = "auto",
    repeats: Annotated[Count, "timed runs of every width"] = 10,
) -> Outcome:
    """Parameters, multiply-adds, latency and memory of every width.

    Example:
        slimdet profile --model bundled --imgsz 640
    """
    import slimdet
    from slimdet import profiling, report

    costs = profiling.profile(slimdet.load(model), imgsz=imgsz, device=device, repeats=repeats)
    return Outcome(costs, report.cost_table(costs["widths"]))


def doctor() -> Outcome:
    """Versions, engines, devices; what is missing and how to get it.

    Example:
        slimdet doctor
    """
    from slimdet import doctor

    findings = doctor.doctor()
    return Outcome(findings, doctor.text(findings))


VERBS = {verb.__name__: verb for verb in (profile, doctor)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `slimdet VERB ...` and return its exit code."""
    return run(VERBS, argv)
