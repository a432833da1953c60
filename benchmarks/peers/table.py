"""Write the tables of README.md from latency.jsonl (its last run) and accuracy.json.

python benchmarks/peers/table.py
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
WIDTHS = (0.25, 0.5, 0.75, 1.0)
EAGER = "torchvision Faster R-CNN R50-FPN, 640 px, torch eager"
ORIGINAL = "the original's way (R50-FPN) 0.25, 640 px, torch eager"
R50 = "slimdet R50-FPN {:g}, 640 px, {}"
ENGINES = ("onnxruntime", "openvino", "openvino bf16")

Times = Mapping[str, Sequence[float]]  # wall and CPU milliseconds of each contender


class Latency:
    """The last run of all contenders in latency.jsonl: its description, and its rounds by number of threads."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        last = [row["run"] for row in rows if row["what"] == "round" and {EAGER, ORIGINAL} <= row["ms"].keys()][-1]
        own = [row for row in rows if row["run"] == last]
        self.run: Mapping[str, Any] = next(row for row in own if row["what"] == "run")
        self.shares = [row for row in own if row["what"] == "share"]
        self.rounds: dict[int, list[Times]] = {}
        self.loads: dict[int, list[float]] = {}
        for row in own:
            if row["what"] == "round":
                self.rounds.setdefault(row["threads"], []).append(row["ms"])
                self.loads.setdefault(row["threads"], []).append(row["load"])

    def cell(self, name: str) -> str:
        """CPU milliseconds on one thread; wall milliseconds on one thread and on all."""
        cpu = _median(row[name][1] for row in self.rounds[1])
        walls = [_median(row[name][0] for row in self.rounds[threads]) for threads in sorted(self.rounds)]
        return f"{_ms(cpu)} ({', '.join(map(_ms, walls))})"

    def ratio(self, slow: str, fast: str) -> str:
        """Median and range over the rounds of how many times less CPU time `fast` takes, on one thread."""
        ratios = [row[slow][1] / row[fast][1] for row in self.rounds[1]]
        return f"{_median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def latency_tables(given: Latency) -> str:
    described: Mapping[str, Mapping[str, Any]] = given.run["contenders"]
    machine = given.run["machine"]
    facts = ("processor", "instructions", "cores")
    versions = ", ".join(f"{package} {machine[package]}" for package in machine if package not in facts)
    counts = " and ".join(
        f"{len(given.rounds[n])} round{'s' * (len(given.rounds[n]) > 1)} on {n} thread{'s' * (n > 1)}"
        for n in sorted(given.rounds)
    )
    loads = [load for loads in given.loads.values() for load in loads]
    head = (
        f"Commit {given.run['commit']}, {given.run['date']}; {machine['processor']}, {machine['cores']} cores "
        f"({', '.join(machine['instructions'])}); {versions}.\n{counts}. The machine's load was {min(loads):.0f} to "
        f"{max(loads):.0f}: where that is more than its cores, wall times are those of a busy machine.\n"
        f"{given.run.get('note', '')}\n"
    )
    peers = [one for one in described.values() if "width" not in one] + [described[ORIGINAL]]
    rows = [
        (one["model"], one["image"], one["engine"], one["timed"], given.cell(_name(one)))
        for one in sorted(peers, key=lambda one: (one["image"], one["model"], one["engine"]))
    ]
    first = _table(("detector", "pixels", "engine", "what is timed", "ms"), rows)
    ours = {
        (one["model"], one["image"], one["engine"]): one for one in described.values() if one["model"][:7] == "slimdet"
    }
    rows = [
        (*key, *(given.cell(_name({**one, "width": width})) for width in WIDTHS)) for key, one in sorted(ours.items())
    ]
    second = _table(("detector", "pixels", "engine", *map(str, WIDTHS)), rows)
    return f"{head}\n{first}\nslimdet, all of it {next(iter(ours.values()))['timed']}, by width:\n\n{second}"


def goal_table(given: Latency) -> str:
    engines = [engine for engine in ENGINES if R50.format(1, engine) in given.run["contenders"]]
    questions = [
        ("torchvision eager / slimdet 1.0", EAGER, 1.0, ">= 2 in f32, >= 4 in bf16"),
        ("slimdet 1.0 / 0.25", None, 0.25, ">= 10"),
        ("the original's way at 0.25 / slimdet 0.25", ORIGINAL, 0.25, ">= 18 in f32"),
    ]
    rows = []
    for what, slow, width, goal in questions:
        cells = (given.ratio(slow or R50.format(1, engine), R50.format(width, engine)) for engine in engines)
        rows.append((what, *cells, goal))
    ratios = _table(("CPU time on one thread, R50-FPN, 640 px, 1000 proposals", *engines, "goal"), rows)
    by_name = [
        (
            f"{share['model']} {share['width']}, {share['image']} px",
            *(f"{100 * share['rest'][e]:.0f} %" for e in ENGINES[:2]),
        )
        for share in given.shares
    ]
    shares = _table(("everything but convolutions and linears", *ENGINES[:2]), by_name)
    return f"{ratios}\n{shares}"


def accuracy_table(found: Mapping[str, Any]) -> str:
    columns = ("AP", "AP50", "AP person", "AP car")
    times = ("cpu_ms", "network_cpu_ms")
    rows = [
        (
            row["name"],
            row["trained_on"],
            *(f"{100 * row[c]:.1f}" for c in columns),
            *(_ms(row[t]) if t in row else "" for t in times),
        )
        for row in found["rows"]
    ]
    theirs, own = found["peers_train_images"], found["train_images"]
    text = (
        f"{found['images']} photographs of everyday's val, {found['objects']} objects, 20 classes; {found['date']}, "
        f"{found['machine']['processor']}, load {found['machine']['load']:.0f}. "
        f"The peers were trained on {theirs:,} photographs, {theirs / own:.0f} times "
        f"everyday's {own:,}.\n\n"
    )
    text += _table(("detector", "trained on", *columns, "CPU ms, pixels to boxes", "of which network"), rows)
    if check := found.get("check"):
        pairs = ", ".join(f"{row['name']} {row['AP']:.3f}" for row in check["rows"])
        text += f"\nCheck of the decoding, all 80 classes of {check['images']} photographs of coco_small: AP {pairs}.\n"
    return text


def _name(one: Mapping[str, Any]) -> str:
    width = f" {one['width']:g}" if "width" in one else ""
    return f"{one['model']}{width}, {one['image']} px, {one['engine']}"


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> None:
    parts: dict[str, str] = {}
    if (file := HERE / "latency.jsonl").exists():
        latency = Latency([json.loads(line) for line in file.read_text().splitlines()])
        parts |= {"goals": goal_table(latency), "latency": latency_tables(latency)}
    if (file := HERE / "accuracy.json").exists():
        parts["accuracy"] = accuracy_table(json.loads(file.read_text()))
    page = PAGE.read_text()
    for name, text in parts.items():
        begin, end = f"<!-- {name}: table.py -->\n", f"<!-- end of {name} -->\n"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
