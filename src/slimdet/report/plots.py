"""Results as pictures (PNG, PDF or SVG, by the path's ending).

Widths are keys as JSON has them ("0.25"), in any order; shown in ascending order. Accuracies are 0..1; -1 (COCO's "no
ground truth") is left out. K classes. Pictures appear whole or not at all, and raise ConfigError where matplotlib is
not installed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimdet.errors import ConfigError
from slimdet.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, BLUE = "#222222", "#C4C4C4", "#0072B2"
# Okabe and Ito's colours, apart also to colour-blind eyes; without their yellow, which is too light for a line.
COLOURS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
GRADIENT = "viridis"  # for more classes than that: even in lightness, and the same to every eye
LISTED, COLUMN = 81, 27  # classes listed by name beside precision-recall curves, and how many of them in a column
KINDS = {"bbox": "boxes", "segm": "masks"}


def plot_confusion_matrix(matrix: np.ndarray, classes: Sequence[str], path: str | Path, title: str = "") -> None:
    """Draw a confusion matrix: numbers are counts (left out above 30 classes).

    Colours are shares of the true class; in the last row, of all that was detected as the column's class.

    Args:
        matrix: counts [K + 1, K + 1], as `slimdet.evaluation.confusion.confusion_matrix` gives them.
        classes: the K names.
    """
    size = len(classes) + 1
    numbered = size <= 31
    side = min(2.6 + size * (0.62 if size <= 8 else 0.42 if numbered else 0.17), 30)  # inches
    figure = _figure(side + 0.8, side)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares[-1] = matrix[-1] / np.maximum(matrix.sum(axis=0), 1)  # of what was detected as this class
    # By the root of the share: a confusion of one in a hundred shall be seen beside the diagonal.
    root = import_module("matplotlib.colors").PowerNorm(0.5, 0, 1)
    picture = axes.imshow(shares, cmap="Blues", norm=root)
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, aspect=25, pad=0.02)
    bar.set_label("share of the row\n(last row: of the column)")
    bar.outline.set_linewidth(0)
    font = 10 if numbered else min(7, 55 * side / size)
    names = [_clipped(name) for name in classes]
    upright = 90 if size > 4 else 0
    axes.set_xticks(range(size), [*names, "missed"], rotation=upright, fontsize=font, parse_math=False)
    axes.set_yticks(range(size), [*names, "nothing there"], fontsize=font, parse_math=False)
    # Thin lines set the background's row and column apart from the classes.
    axes.axhline(size - 1.5, color=INK, linewidth=0.8)
    axes.axvline(size - 1.5, color=INK, linewidth=0.8)
    if numbered:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            ink = "white" if shares[row, column] > 0.3 else INK
            text = _count(int(matrix[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9 if size <= 8 else 8)
    axes.set_xlabel("detected as")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    _write(figure, axes, title, path)


def plot_precision_recall(curves: np.ndarray, classes: Sequence[str], path: str | Path, title: str = "") -> None:
    """Draw precision against recall for every class and their mean; each AP is the mean height of its curve.

    Args:
        curves: [K, 101] precision 0..1 at recall 0.00, 0.01 .. 1.00, as `Evaluation.curves` gives them; a class
            without ground truth (NaN) is left out.
        classes: the K names.
    """
    known = [k for k in range(len(classes)) if not np.isnan(curves[k]).any()]
    known.sort(key=lambda k: -curves[k].mean())
    few = len(known) <= len(COLOURS)
    columns = 0 if not known else 1 if few else math.ceil((min(len(known), LISTED) + 1) / (COLUMN + 1))
    figure = _figure(6.2 + 2.3 * columns, 5.6)
    axes, *lists = figure.subplots(1, 1 + columns, width_ratios=[5.6] + [2.3] * columns, squeeze=False)[0]
    recall = np.linspace(0, 1, curves.shape[1])
    gradient = import_module("matplotlib").colormaps[GRADIENT]
    # Few classes keep their colours from picture to picture: by their place among the classes, not by their AP.
    colours = [COLOURS[sorted(known).index(k)] if few else gradient(0.9 * curves[k].mean()) for k in known]
    for k, colour in zip(known, colours, strict=True):
        axes.plot(recall, curves[k], color=colour, linewidth=1.8 if few else 0.8, alpha=1 if few else 0.6)
    if known:
        axes.plot(recall, curves[known].mean(axis=0), color=INK, linewidth=3)
        _list_classes(lists, curves, classes, known, colours)
    else:
        axes.text(0.5, 0.5, "no ground truth", ha="center", va="center", color=INK, backgroundcolor="white")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    _grid(axes)
    _write(figure, axes, title, path)


def _list_classes(
    lists: Sequence["Axes"], curves: np.ndarray, classes: Sequence[str], known: Sequence[int], colours: Sequence
) -> None:
    """Name, colour and AP of the mean and of each known class, best first, in columns beside the curves."""
    shown = list(zip(known, colours, strict=True))[-LISTED:]  # of too many, the weakest
    entries = [(_clipped(classes[k], 16), float(curves[k].mean()), colour) for k, colour in shown]
    entries.insert(0, ("mean", float(curves[list(known)].mean()), INK))
    height = 14 if len(entries) <= 14 else COLUMN + 1
    for place, axes in enumerate(lists):
        axes.set(xlim=(0, 1.1), ylim=(height, -1))
        axes.axis("off")
        for row, (name, value, colour) in enumerate(entries[place * height : (place + 1) * height]):
            weight = "bold" if colour == INK else "normal"
            style = {"color": INK, "fontsize": 10 if height == 14 else 8, "va": "center", "weight": weight}
            axes.text(0, row, name, parse_math=False, **style)
            axes.barh(row, 0.2 * value, left=0.6, height=0.6, color=colour)
            axes.text(1, row, f"{value:.3f}", ha="right", **style)
    heading = "AP by class" if len(known) <= LISTED else f"AP of the {LISTED} weakest of {len(known)} classes"
    lists[0].set_title(heading, color=INK, fontsize=9, loc="left")


def plot_accuracy_latency(
    points: Mapping[str, tuple[float, float]], path: str | Path, title: str = "", accuracy: str = "box AP (0..1)"
) -> None:
    """Draw accuracy against latency, a point per width, joined in the order of the widths.

    Args:
        points: width -> (latency in ms per image, accuracy 0..1).
        accuracy: the name of the vertical axis.
    """
    widths = [width for width in _ascending(points) if points[width][1] > -1]
    latencies = [points[width][0] for width in widths]
    values = [points[width][1] for width in widths]
    figure = _figure(7, 4.6)
    axes = figure.add_subplot()
    axes.plot(latencies, values, color=BLUE, linewidth=2, marker="o", markersize=8)
    right, top = 1.2 * max(latencies, default=1), 1.15 * max([*values, 0.01])
    axes.set(xlim=(0, right), ylim=(0, top))
    above = True
    for place, (width, latency, value) in enumerate(zip(widths, latencies, values, strict=True)):
        # Under a rising line there is room for the label, unless the axis or the label of the point before is there.
        step = max(place - 1, 0)
        near = place > 0 and latency - latencies[step] < 0.12 * right and abs(value - values[step]) < 0.08 * top
        above = value < 0.08 * top or (near and not above)
        side = "right" if above and latency > 0.15 * right else "left"
        offset = (0, 9) if above else (6, -14)
        axes.annotate(f"width {width}", (latency, value), offset, textcoords="offset points", ha=side, color=INK)
    axes.set_xlabel("latency (ms per image)")
    axes.set_ylabel(accuracy)
    _grid(axes)
    _write(figure, axes, title, path)


def plot_ladder(
    ladder: Mapping[str, tuple[float, float]],
    others: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    title: str = "",
    dots: Sequence[tuple[float, float]] = (),
) -> None:
    """Draw the ladder, accuracy against latency, with other choices of points beside it, and a list of its points.

    Args:
        ladder: name of each point -> (latency in ms, AP 0..1), cheapest first; they are numbered from 0.
        others: name of a choice, as "width alone" -> its points (latency in ms, AP).
        dots: further points (latency in ms, AP), not joined.
    """
    figure = _figure(11.4, 5.6)
    axes, side = figure.subplots(1, 2, width_ratios=[7, 4.4])
    for colour, marker, (name, points) in zip(COLOURS[1:], "s^D", others.items(), strict=False):
        line = {"color": colour, "linewidth": 1.2, "linestyle": "--", "marker": marker, "markersize": 6}
        axes.plot(*zip(*sorted(points), strict=True), label=name, **line)
    if dots:
        axes.scatter(*zip(*dots, strict=True), color=FAINT, s=25, label="others")
    steps = list(ladder.values())
    axes.plot(*zip(*steps, strict=True), color=BLUE, linewidth=2, marker="o", markersize=6, label="the front")
    both = [*steps, *dots, *(point for points in others.values() for point in points)]
    right, top = 1.08 * max(ms for ms, _ in both), 1.12 * max([0.01, *(ap for _, ap in both)])
    axes.set(xlim=(0, right), ylim=(0, top), xlabel="time (ms per image)", ylabel="box AP (0..1)")
    axes.legend(loc="lower right", frameon=False)
    _grid(axes)
    rows = max(len(ladder), 16)
    side.set(xlim=(0, 1), ylim=(rows, -1))
    side.axis("off")
    text = {"color": INK, "fontsize": 9 if rows <= 24 else 7, "parse_math": False}
    before = (-1.0, -1.0)  # where the last number was written, shares of the axes
    for number, (name, (ms, ap)) in enumerate(ladder.items()):
        place = (ms / right, ap / top)
        if number in (0, len(ladder) - 1) or math.dist(place, before) > 0.035:  # numbers need room
            offset = {"textcoords": "offset points", "ha": "right", "va": "bottom"}
            axes.annotate(str(number), (ms, ap), (-3, 3), **offset, **text)
            before = place
        side.text(0.1, number, name, **text)
        for x, words in ((0.06, str(number)), (0.85, f"{ap:.3f}"), (1, f"{ms:.1f}")):
            side.text(x, number, words, ha="right", **text)
    for x, words, align in ((0.1, "point", "left"), (0.85, "AP", "right"), (1, "ms", "right")):
        side.text(x, -1, words, ha=align, weight="bold", **text)
    _write(figure, axes, title, path)


def plot_curves(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], path: str | Path) -> None:
    """Draw numbers over the epochs of a training, a panel for each kind of number, a line for each width.

    Args:
        panels: name of the number -> width -> (epochs, values).
    """
    figure = _figure(4.6 * len(panels), 4)
    widths = _ascending({width for lines in panels.values() for width in lines})
    colours = {width: COLOURS[place % len(COLOURS)] for place, width in enumerate(widths)}
    for axes, (name, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for width in _ascending(lines):
            epochs, values = lines[width]
            marker = "o" if len(epochs) < 15 else ""
            axes.plot(epochs, values, color=colours[width], linewidth=1.8, marker=marker, markersize=4, label=width)
        axes.set_title(name, color=INK, loc="left", fontsize=10)
        axes.set_xlabel("epoch")
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.legend(title="width", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        _grid(axes)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight", pad_inches=0.15)


def plot_labels(classes: Mapping[str, int], sides: np.ndarray, path: str | Path, limits: Sequence[float] = ()) -> None:
    """Draw how many objects of each class there are, and how large they are.

    Args:
        classes: objects by class; of many, those with the most.
        sides: [N], the side in pixels of a square of each object's area.
        limits: sides between small, medium and large, drawn as lines.
    """
    most = sorted(classes, key=lambda name: -classes[name])[:COLUMN]
    figure = _figure(9, max(3.2, 0.24 * len(most) + 1.2))
    left, right = figure.subplots(1, 2)
    left.barh(range(len(most)), [classes[name] for name in most], color=BLUE)
    left.set_yticks(range(len(most)), [_clipped(name) for name in most], parse_math=False)
    left.set_ylim(max(len(most), 5) - 0.5, -0.5)  # a single class is no wall
    more = f" of {COLUMN} of {len(classes)} classes" if len(classes) > COLUMN else ""
    left.set_title(f"objects{more}", color=INK, loc="left", fontsize=10)
    right.hist(sides, bins=40, color=BLUE)
    for limit in limits:
        right.axvline(limit, color=INK, linewidth=0.8, linestyle="--")
    right.set_title("side of a square of the object's area, pixels", color=INK, loc="left", fontsize=10)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        _grid(axes)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight", pad_inches=0.15)


def _ascending(widths: Iterable[str]) -> list[str]:
    return sorted(widths, key=float)


def _count(number: int) -> str:
    return str(number) if number < 10_000 else f"{number / 1000:.0f}k"


def _clipped(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _figure(width: float, height: float) -> "Figure":
    """An empty figure of that many inches, outside pyplot and its global state."""
    try:
        figure_class = import_module("matplotlib.figure").Figure
    except ImportError:
        raise ConfigError("pictures need matplotlib; get it with: pip install 'slimdet[plot]'") from None
    return figure_class(figsize=(width, height), layout="constrained")


def _grid(axes: "Axes") -> None:
    axes.grid(color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


def _write(figure: "Figure", axes: "Axes", title: str, path: str | Path) -> None:
    axes.set_title(title, color=INK, loc="left", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight", pad_inches=0.15)
