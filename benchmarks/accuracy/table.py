"""The study's table and plot, from the rows that are there.

    python benchmarks/accuracy/table.py        writes docs/accuracy_study.md's table and docs/images/accuracy_study.png

Learning rates are chosen on the `tune` images; what is printed was measured on val. Differences are means over the
seeds that both sides have (the last column: over the widths, too), with a paired bootstrap 95 % interval over the val
images.
"""

import functools
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cells import CELLS, QUARTERS, Cell
from matches import Matches, difference, resampled

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE, PLOT = ROOT / "docs" / "accuracy_study.md", ROOT / "docs" / "images" / "accuracy_study.png"
BEGIN, END = "<!-- table: benchmarks/accuracy/table.py -->\n", "<!-- end of table -->\n"

MATCHES = {"bbox": "matches", "segm": "mask_matches"}

Key = tuple[str, str, str, bool]  # data, scope, method, sorted


def read_rows() -> dict[Cell, dict[str, Any]]:
    rows = {}
    for cell in CELLS:
        file = HERE / "rows" / f"{cell.name}.json"
        if file.exists():
            rows[cell] = json.loads(file.read_text())
    return rows


def chosen(rows: Mapping[Cell, Mapping[str, Any]]) -> dict[tuple[Key, float], dict[int, Mapping[str, Any]]]:
    """What each method reached at each width, by seed, at the learning rate that was best on the tune images."""
    found: dict[tuple[Key, float], dict[float, dict[int, Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for cell, row in rows.items():
        for width, parts in row["widths"].items():
            key = (cell.data, cell.scope, cell.method, cell.sort)
            found[key, float(width)][cell.lr][cell.seed] = parts
    best: dict[tuple[Key, float], dict[int, Mapping[str, Any]]] = {}
    for (key, width), by_lr in found.items():
        # One learning rate for all widths of a slimmable detector, one for each individual.
        widths = [width] if key[2].startswith("individual") else [other for name, other in found if name == key]
        best[key, width] = by_lr[max(by_lr, key=lambda lr, key=key, widths=widths: _tune_ap(found, key, widths, lr))]
    return best


def _tune_ap(found: Mapping[Any, Any], key: Key, widths: list[float], lr: float) -> float:
    """Mean over the widths on the tune images, of the first seed: it is tried with all learning rates."""
    firsts = (found[key, width][lr][min(found[key, width][lr])] for width in widths)
    return sum(first["tune"]["bbox"]["AP"] for first in firsts) / len(widths)


def _ap(seeds: Mapping[int, Mapping[str, Any]], kind: str = "bbox") -> float:
    return 100 * sum(part["val"][kind]["AP"] for part in seeds.values()) / len(seeds)


def table(best: Mapping[tuple[Key, float], Mapping[int, Mapping[str, Any]]]) -> str:
    heads = ["data, scope", "method", *(f"AP at {width:g}" for width in QUARTERS), "mean difference"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for key in dict.fromkeys(key for key, _ in best):
        data, scope, method, in_order = key
        name = method if in_order else f"{method}, channels unsorted"
        kinds = next(parts["val"] for (other, _), seeds in best.items() if other == key for parts in seeds.values())
        for kind in (kind for kind in MATCHES if kind in kinds):
            pairs = {width: _pair(best, key, width, kind) for width in QUARTERS}
            cells = [_entry(best.get((key, width), {}), pair, kind) for width, pair in pairs.items()]
            compared = [pair for pair in pairs.values() if pair[0]]
            means = ([np.mean(pair[side], axis=0) for pair in compared] for side in (0, 1))  # over the seeds of a width
            mean = _gain(*means) if len(compared) > 1 else ""
            what = f"{data}, {scope}" + (", masks" if kind == "segm" else "")
            lines.append(f"| {what} | {name} | {' | '.join(cells)} | {mean} |")
    return "\n".join(lines) + "\n"


def _pair(
    best: Mapping[tuple[Key, float], Mapping[int, Mapping[str, Any]]], key: Key, width: float, kind: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Resampled APs of a method and of the individual, of the seeds that both have; empty for individuals."""
    data, scope, method, _ = key
    narrowed = scope if width < 1 else "detector"  # at 1.0 nothing narrows, whatever the scope
    ours, theirs = best.get((key, width), {}), best.get(((data, narrowed, "individual", True), width), {})
    seeds = [] if method == "individual" else sorted(set(ours) & set(theirs))
    first, second = ([_resampled(side[seed]["val"][MATCHES[kind]]) for seed in seeds] for side in (ours, theirs))
    return first, second


@functools.cache
def _resampled(matches: str) -> np.ndarray:
    return resampled(Matches.from_text(matches))


def _entry(ours: Mapping[int, Mapping[str, Any]], pair: tuple[list[np.ndarray], list[np.ndarray]], kind: str) -> str:
    """AP, number of seeds, and the difference to the individual."""
    if not ours:
        return ""
    text = f"{_ap(ours, kind):.1f} [{len(ours)}]"
    return f"{text} ({_gain(*pair)})" if pair[0] else text


def _gain(ours: list[np.ndarray], theirs: list[np.ndarray]) -> str:
    """Mean difference in AP, with its interval."""
    gain = {name: 100 * value for name, value in difference(ours, theirs).items()}
    return "{difference:+.1f}: {low:+.1f} .. {high:+.1f}".format(**gain)


def plot(best: Mapping[tuple[Key, float], Mapping[int, Mapping[str, Any]]]) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for key in dict.fromkeys(key for key, _ in best if key[:2] == ("animalpose", "detector")):
        points = [(width, _ap(best[key, width])) for width in QUARTERS if (key, width) in best]
        style = "o--" if key[2].startswith("individual") else "o-"
        axes.plot(*zip(*points, strict=True), style, label=key[2] if key[3] else f"{key[2]}, unsorted")
    axes.set(xlabel="width", ylabel="box AP on val", xticks=QUARTERS, title="animalpose, scope detector")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(PLOT, dpi=120)


def main() -> None:
    rows = read_rows()
    best = chosen(rows)
    missing = [cell.name for cell in CELLS if cell not in rows]
    text = table(best) + f"\n{len(rows)} of {len(CELLS)} runs are there"
    text += f"; missing are {', '.join(missing)}.\n" if missing else ".\n"
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])
    plot(best)
    print(text)


if __name__ == "__main__":
    main()
