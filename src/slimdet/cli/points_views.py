"""What people see of operating points: the ladder that `tune` found, the rows of a `benchmark`."""

from typing import TYPE_CHECKING, Any

from slimdet.benchmarking.disturbance import BUSY
from slimdet.cli.views import accuracy, aligned, group, new_table

if TYPE_CHECKING:
    from rich.console import Group

    from slimdet.benchmarking.benchmark import Benchmark
    from slimdet.benchmarking.table import Row
    from slimdet.search.searching import Search
    from slimdet.search.tuning import Step, Tuning


def tuning(result: "Tuning") -> "Group":
    """The ladder, and the point to use."""
    table = new_table("", "point", "AP", "AP50", "latency", "times quicker", "AP kept")
    table.columns[1].justify = "left"
    full = result.full
    for number, step in enumerate(result.ladder):
        table.add_row(str(number), str(step.rung.point), *_step(step, full))
    text = (
        f"{len(result.ladder)} of {result.tried} points, measured on {full.rung.images} images\n"
        f"latencies are medians on {result.machine}\n"
        f"quicker than, and kept of, width {full.rung.point}\n"
        f"the ladder is in {result.model}, the picture in {result.run}/ladder.png"
    )
    return group(table, text, *_chosen(result))


def _chosen(result: "Tuning") -> list[str]:
    step = result.chosen
    if step is None:
        return []
    numbers = f"width {step.rung.point}: {step.timing.p50_ms:.1f} ms, AP {step.rung.ap:.3f}"
    return [f"\nuse {numbers}" if result.fits else f"\nno point keeps the budget; the quickest is {numbers}"]


def _step(step: "Step", full: "Step") -> list[str]:
    ap, ms, most = step.rung.ap, step.timing.p50_ms, full.rung.ap
    kept = f"{ap / most:.0%}" if most > 0 else "-"
    return [accuracy(ap), accuracy(step.rung.metrics["AP50"]), f"{ms:.1f} ms", f"{full.timing.p50_ms / ms:.1f}", kept]


def search(result: "Search") -> "Group":
    """The plan beside equal widths for the same budget, stage by stage; what was predicted, and what it took."""
    stages = new_table("stage", "width", "equal widths")
    for names in result.stages:
        stages.add_row(", ".join(names), *(f"{one.plan[names[0]]:g}" for one in (result.best, result.equal)))
    numbers = new_table("", "AP", "predicted", "measured", "prediction off by")
    for name, one in (("plan", result.best), ("equal widths", result.equal)):
        numbers.add_row(name, accuracy(one.ap), f"{one.predicted_ms:.1f} ms", f"{one.ms:.1f} ms", f"{one.error:+.0%}")
    low, gain, high = (100 * value for value in result.gain)
    place = (
        "is in its ladder" if result.in_ladder else "is not in its ladder: 'slimdet tune' looks at it with the others"
    )
    text = (
        f"{len(result.trials)} plans tried; the best is {gain:+.1f} AP from equal widths ({low:+.1f} to {high:+.1f}, "
        f"95 % of resamples of {result.images} images)\n"
        f"it is width {result.width:g} of {result.model} and {place}"
    )
    return group(stages, numbers, text)


def tuning_document(result: "Tuning") -> dict[str, Any]:
    """What --json prints: points as a bundle has them."""

    def entry(step: "Step | None") -> dict[str, Any] | None:
        return None if step is None else step.timing.entry | step.rung.entry

    document = {name: getattr(result, name) for name in ("run", "model", "machine", "tried", "fits")}
    document |= {name: entry(getattr(result, name)) for name in ("full", "chosen")}
    return document | {name: [entry(step) for step in getattr(result, name)] for name in ("ladder", "others")}


def benchmark(result: "Benchmark") -> str:
    """The rows, what to know of them, and where the files are; without rich, which comes with torch."""
    rows, first = result.rows, result.rows[0]
    columns = {
        "point": lambda row: str(row.point),
        "scenario": lambda row: row.scenario,
        "AP": lambda row: _number(row.ap, 3),
        "p50 ms": lambda row: _number(row.p50_ms, 1),
        "p90 ms": lambda row: _number(row.p90_ms, 1),
        "p99 ms": lambda row: _number(row.p99_ms, 1),
        "images/s": lambda row: _number(row.images_per_s, 1) + ("!" if row.overloaded else ""),
        "MiB": lambda row: _number(row.mb, 0),
        "front": lambda row: "*" if row.front else "",
    }
    lines = [list(columns), *([text(row) for text in columns.values()] for row in rows)]
    accuracy_line = "no accuracy was measured: give --data DATA.yaml"
    if first.ap is not None:
        accuracy_line = f"AP on {first.images} images of {first.data}; * is the Pareto front"
    return "\n".join(
        [
            aligned(lines),
            "",
            f"{first.engine} {first.version} on {first.device}, {first.cpu}; timed on {first.timed_on}",
            accuracy_line,
            *_warnings(rows),
            *([f"contract {result.contract}: kept by {len(result.keeping)} rows"] if result.keeping else []),
            f"the page is {result.run}/index.html, the rows are in benchmark.csv and benchmark.json beside it",
        ]
    )


def unkept(result: "Benchmark") -> str:
    """What is wrong where no row keeps the contract; empty where one does, or where there is none."""
    row = result.nearest
    if row is None:
        return ""
    return f"no point keeps {result.contract}; the nearest is width {row.point}, {row.scenario}: {result.values}"


def _warnings(rows: list["Row"]) -> list[str]:
    """What took time away while the rows were timed."""
    found = []
    if whether := sorted({row.throttled for row in rows} - {"no"}):
        found.append(f"throttled while it was timed: {' or '.join(whether)}")
    if (others := max(row.others_percent or 0 for row in rows)) > BUSY:
        found.append(f"other processes took up to {others:.0f} % of the cores' time: compare the rows with one another")
    if any(row.overloaded for row in rows):
        found.append("! images arrive faster than they can be done: the latencies grow with their number")
    return found


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
