"""What people see of a verb's result: tables (with rich), texts, what to try next.

Widths are keys as JSON has them ("0.25"), in any order; shown in ascending order. Accuracies are 0..1; -1 (COCO's "no
ground truth") is a dash.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from slimdet.bundle import manifest
from slimdet.messages import listed, printable_lines

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from slimdet.bundle.extraction import Extraction
    from slimdet.cli.conversion import Conversion
    from slimdet.cli.demo import Demo
    from slimdet.data.check import Fault
    from slimdet.data.summary import Summary
    from slimdet.evaluation.validation import Progress, Validation
    from slimdet.exporting.engine_files import Export
    from slimdet.exporting.writing import Int8File
    from slimdet.jobs.detection import Job
    from slimdet.report.costs import Costs
    from slimdet.runtime.prediction import Predictions
    from slimdet.search.trials import Told
    from slimdet.streaming.recording import Recording
    from slimdet.training.calibration import Calibration
    from slimdet.training.runs import Training

# ------------------------------------------------------------------------------------------------- by verb


def demo(result: "Demo") -> str:
    return (
        f"{cost_table(result.points, 'point')}\n\npictures are in {result.run}\n\nnext:\n"
        "  slimdet predict YOUR_PHOTO.jpg --model bundled --width 0.5\n"
        "  slimdet profile --model bundled\n"
        "  slimdet train --data DATA.yaml --weights bundled      your own classes"
    )


def training(result: "Training") -> "Group":
    model, widths = result.model, manifest.read(result.model).widths
    text = (
        f"{result.steps} steps; the model is {model}\n\nnext:\n"
        f"  slimdet predict IMAGE --model {model} --width {widths[(len(widths) - 1) // 2]}\n"
        f"  slimdet profile --model {model}"
    )
    return group(accuracy_table(result.widths), text)


def calibration(result: "Calibration") -> "Group":
    text = f"width {result.width} has statistics of {result.images} images; the bundle is {result.model}"
    return group(accuracy_table({str(result.width): result.metrics}), text)


def validation(result: "Validation") -> "Group":
    boxes = {width: kinds["bbox"] for width, kinds in result.classes.items()}
    text = f"detections, confusion matrices and precision-recall curves in {result.run}"
    return group(accuracy_table(result.widths), class_table(boxes), text)


def predictions(found: "Predictions") -> str:
    seen, detections = len(found.coco["images"]), len(found.coco["annotations"])
    return f"{seen} images, {detections} detections; pictures and detections.json in {found.run}"


def unread(found: "Predictions") -> str:
    """The mistake of files that are broken; empty where none is."""
    seen, broken = len(found.coco["images"]), len(found.broken)
    return f"{broken} of {seen + broken} files could not be read, see above" if broken else ""


def recording(found: "Recording") -> str:
    lines = [
        f"{found.frames} frames at {found.fps:.1f} a second, {found.looked} looked at; from a frame to its boxes "
        f"{found.p50_ms:.1f} ms, 95 of 100 within {found.p95_ms:.1f}"
    ]
    if found.target_ms is not None and found.attained is not None:
        lines.append(
            f"budget {found.target_ms:.1f} ms a frame, held in {100 * found.attained:.1f} % of the looks; "
            f"{found.switches} changes of the point"
        )
    if found.dropped or found.reconnects:
        lines.append(f"{found.dropped} frames dropped, {found.reconnects} reconnects")
    ap = "" if found.mean_ap is None else f" (mean AP {found.mean_ap:.3f})"
    lines.append(f"points{ap}: " + "; ".join(f"{100 * share:.0f} % {name}" for name, share in found.points.items()))
    return "\n".join([*lines, f"in {found.run}: " + ", ".join(file.name for file in found.files)])


def job(done: "Job") -> str:
    broken = f", {done.broken} could not be read" if done.broken else ""
    before = f", {done.resumed} of them before" if done.resumed else ""
    lines = [f"{done.images} images{before}{broken}; {done.images_s:.1f} a second on {done.workers} workers"]
    ap = "" if done.mean_ap is None else f" (mean AP {done.mean_ap:.3f})"
    lines.append(f"points{ap}: " + "; ".join(f"{100 * share:.0f} % {name}" for name, share in done.points.items()))
    return "\n".join([*lines, f"parts in {done.run}"])


def costs(found: "Costs") -> str:
    words = {"disk_mb": "on disk", "memory_mb": "of memory"}
    lines = []
    for mode, whole in found.all.items():
        parts = [f"{whole[key]:.0f} MB {where}" for key, where in words.items() if key in whole]
        times = ", ".join(f"{ms:.1f}" for ms in whole["latency_ms"].values())
        lines.append(f"\nall widths in one process, memory {mode}: {', '.join(parts)}; {times} ms")
    by_width = ", ".join(f"{width} {precision}" for width, precision in found.precisions.items())
    if len(kinds := set(found.precisions.values())) == 1:
        by_width = min(kinds)
    if found.width_threads:
        by_width += f", threads {', '.join(f'{width} {count}' for width, count in found.width_threads.items())}"
    timed = f"median of {found.repeats} runs on {found.imgsz}x{found.imgsz} pixels of noise"
    return f"{cost_table(found.widths)}\n\n{found.engine} on {found.device}, {by_width}, {timed}{''.join(lines)}"


def extraction(written: "Extraction") -> str:
    """How to run what was extracted, with torch and torchvision alone."""
    file = str(written.out / "detector.pt")
    across = '  kept = torchvision.ops.nms(found["boxes"], found["scores"], 0.5)  # across classes, as the bundle does'
    return (
        f"width {written.width}, {written.parameters / 1e6:.2f} M parameters, in {written.out}; to run it:\n\n"
        "  import torch, torchvision\n"
        f"  detector = torch.load({file!r}, weights_only=False).eval()\n"
        "  found = detector([image])[0]  # image: float tensor [3, H, W] in 0..1"
        + (f"\n{across}" if written.nms == "all" else "")
    )


def export(written: "Export") -> str:
    lines = [f"{entry.file}: {entry.bytes / 2**20:.1f} MiB" for entry in written.widths.values()]
    lines += [f"{one.file}: {one.bytes / 2**20:.1f} MiB, {_against_fp32(one)}" for one in written.int8.values()]
    return "\n".join([*lines, f"in {written.out}; how to run them: docs/edge.md"])


def _against_fp32(one: "Int8File") -> str:
    drop = ", ".join(
        f"{'' if kind == 'bbox' else kind + ' '}AP {100 * ap:.2f} against {100 * one.fp32_AP[kind]:.2f}"
        for kind, ap in one.AP.items()
    )
    left = f", {len(one.fp32_layers)} layers left in 32 bits" if one.fp32_layers else ""
    speed = f"{one.speedup:.2f} times as fast" + ("" if one.speedup > 1 else ": 32 bits stay the width's best")
    return f"{drop} on {one.val_images} images, {speed}{left}"


def conversion(written: "Conversion") -> str:
    told = [written.why, *written.notes] if written.why else []
    return "\n".join([*told, *(f"{name}: {path}" for name, path in written.files.items())])


def check(held: Mapping[str, "Summary"], faults: Sequence["Fault"], told: Sequence[str]) -> str:
    """What the set was taken for and what was left out, what each split holds, and a line for each fault."""
    from slimdet.data.annotations import MENDED

    parts = ["\n".join(told)] if told else []
    parts += [f"{name}: {summary(one)}" for name, one in held.items()]
    grave = [str(one) for one in faults if one.kind not in MENDED]
    if mended := [str(one) for one in faults if one.kind in MENDED]:
        parts.append("\n".join(["put right whenever the data set is read:", *mended]))
    return "\n\n".join([*parts, "\n".join(grave) or "no faults"])


def summary(held: "Summary") -> str:
    """A data set in a few lines."""
    lines = [
        f"{held.images} images ({held.empty} without objects), {held.width}x{held.height} pixels (medians)",
        f"{held.boxes} objects, at most {held.per_image} in an image; {shares(held)}",
        *([f"{held.crowds} crowds or difficult objects, which neither train nor count"] if held.crowds else []),
        listed([f"{name} {count}" for name, count in held.classes.items()], 30),
    ]
    return "\n  ".join(lines)


def shares(held: "Summary") -> str:
    """How many of the objects are small, medium and large."""
    return (
        f"{held.small:.0%} small (below 32x32 pixels), {held.medium:.0%} medium, {held.large:.0%} large (from 96x96 on)"
    )


# ------------------------------------------------------------------------------------------------- progress


@contextmanager
def evaluation_bar() -> "Iterator[Progress]":
    """Yield what shows how far an evaluation is: a bar for each operating point, on a terminal."""
    with bars() as progress:
        yield lambda point, done, total: progress(f"width {point}", done, total)


@contextmanager
def bars() -> "Iterator[Told]":
    """Yield what shows how far each of some tasks is: a bar for each, on a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    tasks: dict[str, Any] = {}
    with Bars(console=console, transient=True, disable=not console.is_terminal) as shown:

        def progress(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = shown.add_task(task, total=total)
            shown.update(tasks[task], completed=done)

        yield progress


# ------------------------------------------------------------------------------------------------- tables


def cost_table(results: Mapping[str, Mapping[str, float]], what: str = "width") -> str:
    """What each width, or point, costs, a line for each in their order.

    Args:
        results: name -> any of "parameters" (count), "macs" (multiply-adds), "latency_ms", "memory_mb", "disk_mb",
            "detections" (count), "AP" (0..1, -1 where it is not known); a number that none has gets no column.
        what: the names are of.
    """
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "parameters": ("parameters", lambda value: f"{value / 1e6:.2f} M"),
        "macs": ("multiply-adds", lambda value: f"{value / 1e9:.2f} G"),
        "latency_ms": ("latency", lambda value: f"{value:.1f} ms"),
        "memory_mb": ("memory", lambda value: f"{value:.0f} MB"),
        "disk_mb": ("disk", lambda value: f"{value:.1f} MB"),
        "detections": ("detections", lambda value: f"{value:.0f}"),
        "AP": ("AP", lambda value: f"{value:.3f}" if value > -1 else "-"),
    }
    shown = {key: column for key, column in columns.items() if any(key in numbers for numbers in results.values())}
    rows = [[what, *(title for title, _ in shown.values())]]
    for name, numbers in results.items():
        rows.append([name, *(text(numbers[key]) if key in numbers else "-" for key, (_, text) in shown.items())])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table as text, all cells to the right; the first row is its heading. It needs no rich."""
    widest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(size) for cell, size in zip(row, widest, strict=True)) for row in rows]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def accuracy_table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> "Group":
    """The 12 COCO numbers of every width, a table per IoU type; 79 columns wide.

    Args:
        results: width -> "bbox" / "segm" -> the 12 numbers, as `slimdet.evaluation.matching.evaluate` gives them.
    """
    from slimdet.report.plots import KINDS

    tables = []
    for kind in next(iter(results.values()), {}):
        first = next(iter(results.values()))[kind]
        table = new_table(
            "width",
            *(name.replace("_small", "s").replace("_medium", "m").replace("_large", "l") for name in first),
            padding=0,
        )
        table.title = KINDS.get(kind, kind)
        for width in sorted(results, key=float):
            table.add_row(width, *(accuracy(results[width][kind][name]) for name in first))
        tables.append(table)
    return group(*tables)


def class_table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> "Table":
    """The AP of every class, a column per width.

    Args:
        results: width -> class -> numbers, as `Evaluation.per_class` gives them.
    """
    from rich.text import Text

    widths = sorted(results, key=float)
    table = new_table("AP at width", *widths)
    table.columns[0].justify = "left"
    for name in next(iter(results.values()), {}):
        text = Text(name)  # a class called "[b]" is no markup
        table.add_row(text, *(accuracy(results[width][name]["AP"]) for width in widths))
    return table


def new_table(*columns: str, padding: int = 1) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), pad_edge=False, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def accuracy(value: float) -> str:
    return f"{value:.3f}" if value > -1 else "-"


def group(*parts: Any) -> "Group":
    """Tables, and texts that may have names of files in them, one below the other."""
    from rich.console import Group

    return Group(*(printable_lines(part) if isinstance(part, str) else part for part in parts))
