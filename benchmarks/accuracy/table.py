"""The study's table and plot, from the rows that are there.

    python benchmarks/accuracy/table.py        writes docs/accuracy_study.md's table and docs/images/accuracy_study.png

Learning rates are chosen on the `tune` images; what is printed was measured on val. Differences are means over the
seeds that both sides have (the last column: over the widths, too), with a paired bootstrap 95 % interval over the val
images. `matches.npz.xz` keeps what the intervals need, of the runs at the chosen learning rates.
"""

import functools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cells import CELLS, QUARTERS, Cell
from matches import Matches, difference, read, resampled, write

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE, PLOT = ROOT / "docs" / "accuracy_study.md", ROOT / "docs" / "images" / "accuracy_study.png"
BEGIN, END = "<!-- table: benchmarks/accuracy/table.py -->\n", "<!-- end of table -->\n"

STORE = HERE / "matches.npz.xz"
NEW = ROOT / "runs" / "accuracy"  # where study.py leaves a cell's matches

Key = tuple[str, str, str, bool]  # data, scope, method, sorted


def read_rows() -> dict[Cell, dict[str, Any]]:
    rows = {}
    for cell in CELLS:
        file = HERE / "rows" / f"{cell.name}.json"
        if file.exists():
            rows[cell] = json.loads(file.read_text())
            for width, parts in rows[cell]["widths"].items():
                parts["name"] = f"{cell.name}/{width}"
    return rows


@functools.cache
def all_matches() -> dict[str, Matches]:
    """By cell, width and kind; those of new runs replace older ones."""
    files = [STORE, *sorted(NEW.glob(f"*/{STORE.name}"))]
    return {name: entry for file in files if file.exists() for name, entry in read(file).items()}


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


@dataclass(frozen=True)
class Line:
    """A method on one set in one scope, boxes or masks.

    Attributes:
        aps: by width, AP in percent and how many seeds it is the mean of.
        gains: by width, AP minus that of the individuals of the same seeds, with its interval, in percent.
        mean: the same of the mean over `gains`' widths, where there are several.
    """

    key: Key
    kind: str
    aps: dict[float, tuple[float, int]]
    gains: dict[float, dict[str, float]]
    mean: dict[str, float] | None

    @property
    def name(self) -> str:
        return self.key[2] if self.key[3] else f"{self.key[2]}, channels unsorted"

    @property
    def where(self) -> str:
        data, scope, _, _ = self.key
        return f"{data}, {scope}" + (", masks" if self.kind == "segm" else "")


def compare(
    best: Mapping[tuple[Key, float], Mapping[int, Mapping[str, Any]]], reference: str = "individual"
) -> list[Line]:
    """Every method against one of them."""
    lines = []
    for key in dict.fromkeys(key for key, _ in best):
        by_width = {width: best[key, width] for width in QUARTERS if (key, width) in best}
        kinds = next(parts["val"] for seeds in by_width.values() for parts in seeds.values())
        for kind in kinds:
            pairs = {width: _pair(best, key, width, kind, reference) for width in by_width}
            pairs = {width: pair for width, pair in pairs.items() if pair[0]}
            aps = {width: (_ap(seeds, kind), len(seeds)) for width, seeds in by_width.items()}
            gains = {width: _gain(*pair) for width, pair in pairs.items()}
            sides = ([np.mean(pair[side], axis=0) for pair in pairs.values()] for side in (0, 1))
            lines.append(Line(key, kind, aps, gains, _gain(*sides) if len(pairs) > 1 else None))
    return lines


def _pair(
    best: Mapping[tuple[Key, float], Mapping[int, Mapping[str, Any]]], key: Key, width: float, kind: str, reference: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Resampled APs of a method and of the reference, of the seeds that both have; empty for the reference."""
    data, scope, *method = key
    narrowed = scope if width < 1 else "detector"  # at 1.0 nothing narrows, whatever the scope
    ours, theirs = best.get((key, width), {}), best.get(((data, narrowed, reference, True), width), {})
    seeds = [] if method == [reference, True] else sorted(set(ours) & set(theirs))
    first, second = ([_resampled(f"{side[seed]['name']}/{kind}") for seed in seeds] for side in (ours, theirs))
    return first, second


@functools.cache
def _resampled(name: str) -> np.ndarray:
    if name not in all_matches():
        raise SystemExit(f"no matches of {name}: remove the cell's row and let study.py run it again")
    return resampled(all_matches()[name])


def _ap(seeds: Mapping[int, Mapping[str, Any]], kind: str) -> float:
    return 100 * sum(part["val"][kind]["AP"] for part in seeds.values()) / len(seeds)


def _gain(ours: list[np.ndarray], theirs: list[np.ndarray]) -> dict[str, float]:
    return {name: 100 * value for name, value in difference(ours, theirs).items()}


def table(lines: Sequence[Line]) -> str:
    heads = ["data, scope", "method", *(f"AP at {width:g}" for width in QUARTERS), "mean difference"]
    text = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for line in lines:
        cells = [_entry(line, width) for width in QUARTERS]
        text.append(f"| {line.where} | {line.name} | {' | '.join(cells)} | {_signed(line.mean)} |")
    return "\n".join(text) + "\n"


def _entry(line: Line, width: float) -> str:
    """AP, number of seeds, and the difference to the individual."""
    if width not in line.aps:
        return ""
    text = "{:.1f} [{}]".format(*line.aps[width])
    return f"{text} ({_signed(line.gains[width])})" if width in line.gains else text


def _signed(gain: Mapping[str, float] | None) -> str:
    return "{difference:+.1f}: {low:+.1f} .. {high:+.1f}".format(**gain) if gain else ""


def plot(lines: Sequence[Line]) -> None:
    """AP by width of the main methods; the mean difference of all of them to the individuals."""
    boxes = [line for line in lines if line.kind == "bbox"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    shown = {"individual": "s--", "individual-taught": "^--", "plain": "o-", "late-root": "o-"}
    for line in boxes:
        if line.key[:2] == ("animalpose", "detector") and line.name in shown:
            left.plot(line.aps.keys(), [ap for ap, _ in line.aps.values()], shown[line.name], label=line.name)
    left.set(xlabel="width", ylabel="box AP on val", xticks=QUARTERS, title="animalpose, scope detector")
    left.legend(loc="lower right")
    left.grid(alpha=0.3)
    compared = [line for line in boxes if line.mean][::-1]
    for row, line in enumerate(compared):
        gain = line.mean or {}
        seeds = min(count for width, (_, count) in line.aps.items() if width in line.gains)
        right.plot([gain["low"], gain["high"]], [row, row], "-", color="C0", lw=3 if seeds > 1 else 1.5)
        right.plot(gain["difference"], row, "o", color="C0")
    right.axvline(0, color="0.4", lw=1)
    labels = [f"{line.name} ({line.where}; {', '.join(f'{width:g}' for width in line.gains)})" for line in compared]
    right.set_yticks(range(len(compared)), labels, fontsize=7)
    right.set(xlabel="box AP above the individuals (mean)")
    right.set_title("95 % intervals; thick: the method has several seeds", fontsize=9)
    right.grid(alpha=0.3, axis="x")
    figure.savefig(PLOT, dpi=120)


def main() -> None:
    rows = read_rows()
    best = chosen(rows)
    missing = [cell.name for cell in CELLS if cell not in rows]
    chosen_runs = {parts["name"] for seeds in best.values() for parts in seeds.values()}
    write(STORE, {name: entry for name, entry in all_matches().items() if name.rpartition("/")[0] in chosen_runs})
    lines = compare(best)
    ablation = [
        line for line in compare(best, "late-root") if line.gains and line.key[:2] == ("animalpose", "detector")
    ]
    text = (
        f"{table(lines)}\nDifferences to `late-root`:\n\n{table(ablation)}\n{len(rows)} of {len(CELLS)} runs are there"
    )
    text += f"; missing are {', '.join(missing)}.\n" if missing else ".\n"
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])
    plot(lines)
    print(text)


if __name__ == "__main__":
    main()
