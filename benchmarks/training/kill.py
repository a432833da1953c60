"""Kill small trainings at random moments and fill their disk: is anything lost, does every run end in the same bits?

A training of a few seconds runs in a process of its own. It is killed (SIGKILL, the whole group: those who read images
too) at random moments, while a checkpoint is being written, and while the bundle is. After every kill it is looked at
what is on disk, then the run goes on, and at its end the weights must be those of the run that nobody disturbed. For
the full disk, the k-th sync to disk and all after it fail (ENOSPC).

    python benchmarks/training/kill.py --out result.json

kill.json is a list of such results, of several starts.
"""

import argparse
import errno
import hashlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from scenes import make_scenes  # pyright: ignore
from scenes_detector import small_settings  # pyright: ignore
from slimdet import files
from slimdet.bundle import manifest, store
from slimdet.errors import SlimdetError
from slimdet.training.runs import resume, train
from slimdet.training.safety.checkpoint import CHECKPOINT, read_checkpoint

STEPS = 6
SECONDS = 0.0  # that a run takes by itself, once measured
Moment = Callable[[Path, random.Random], Any]  # waits for the moment to kill the process that writes to the folder


def settings_of(data: Path) -> Any:
    """A training with everything that has a state: average, teaching, random widths, processes that read images."""
    return small_settings(
        data,
        backbone="mobilenet_v2",
        widths=(0.25, 0.5, 0.75, 1.0),
        width_sampling="sandwich",
        distill=1.0,
        ema=0.9,
        epochs=STEPS / 3,
        workers=1,
        save_every=0.5,
        check=False,
    )


# --- the process that trains


class Child:
    """A training, or its continuation, in a process and a group of its own; what it says is in `said`.

    A fork: nothing is imported again. Its exit code is 0 when it is done, 3 when the disk was full.
    """

    def __init__(self, data: Path, run: Path, full_at: int = 0) -> None:
        self.said = run.with_name(run.name + ".txt")
        sys.stdout.flush()
        self.pid = os.fork()
        self.code: int | None = None
        if self.pid == 0:
            os.setpgid(0, 0)
            code = 1
            with self.said.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                sys.stdout = sys.stderr = file  # where they were replaced, as under pytest
                try:
                    code = train_here(data, run, full_at)
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)

    def running(self) -> bool:
        """Whether it has not ended by itself."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def kill(self) -> None:
        """SIGKILL to the process and those it started."""
        if self.running():
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code


def train_here(data: Path, run: Path, full_at: int) -> int:
    """Train, or go on."""
    if full_at:
        fill_disk(full_at)
    try:
        if (run / CHECKPOINT).exists():
            resume(run)
        else:
            train(settings_of(data), out=run)
    except OSError as error:
        if error.errno != errno.ENOSPC or not error.filename:
            raise
        print(f"{error.strerror}: {str(error.filename).replace(str(run), 'RUN')}")
        return 3
    return 0


def fill_disk(at: int) -> None:
    """Let the `at`-th sync fail, as on a full disk, and all after it."""
    count, sync = 0, os.fsync

    def failing(handle: int) -> None:
        nonlocal count
        count += 1
        if count >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    os.fsync = failing


# --- the one that kills it


def any_moment(run: Path, draw: random.Random) -> None:
    """Any time, from the start on."""
    time.sleep(draw.uniform(0, SECONDS))


def in_a_save(run: Path, draw: random.Random) -> None:
    """While a checkpoint is being written."""
    wait(lambda: (run / CHECKPOINT).exists())
    time.sleep(draw.uniform(0, SECONDS / 3))
    wait(lambda: any(run.glob(".last-writing-*")))
    time.sleep(draw.uniform(0, 0.05))


def in_the_bundle(run: Path, draw: random.Random) -> None:
    """While the bundle is being written, first or again."""
    wait(lambda: any(run.glob(".model-writing-*")))
    time.sleep(draw.uniform(0, 0.08))


def wait(until: Callable[[], bool], seconds: float = 120) -> None:
    """Look often, so that short moments are met."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        time.sleep(0.0005)


def look(run: Path) -> str:
    """What is on disk: a checkpoint that loads, and a bundle that loads or none yet; else say what is wrong."""
    try:
        if (run / CHECKPOINT).exists():
            read_checkpoint(run / CHECKPOINT)
        elif any(run.glob("model*")):
            return "a bundle without a checkpoint"
        if (run / "model").exists() or files.restore_folder(run / "model"):
            manifest.read(run / "model").weights()
            store.load(run / "model")
    except SlimdetError as error:
        return str(error)
    return ""


def digest(run: Path) -> str:
    """Of the weights that the run made."""
    return hashlib.sha256((run / "model" / "weights.safetensors").read_bytes()).hexdigest()


def disturbed(data: Path, run: Path, moment: Moment, draw: random.Random) -> dict[str, Any]:
    """One run that is killed once, looked at, and gone on with."""
    child = Child(data, run)
    moment(run, draw)
    killed = child.running()  # else it was done before
    child.kill()
    writing = sorted({entry.name.split("-")[0] for entry in run.glob(".*-writing-*")})
    faults = look(run)
    begun = (run / CHECKPOINT).exists()
    step = read_checkpoint(run / CHECKPOINT)["step"] if begun else None
    code = Child(data, run if begun else run.with_name(run.name + "-anew")).wait()
    run = run if begun else run.with_name(run.name + "-anew")
    leftovers = [entry.name for entry in run.glob(".*") if entry.name != ".lock"] if code == 0 else []
    return {
        "killed": killed,
        "at_step": step,
        "while_writing": writing,
        "faults": faults or ("" if code == 0 else f"exit code {code} when gone on with"),
        "weights": digest(run) if code == 0 else "",
        "leftovers": leftovers,
    }


def filled(data: Path, run: Path, at: int) -> dict[str, Any]:
    """One run whose disk is full from the `at`-th sync on, looked at, and gone on with when there is room again."""
    child = Child(data, run, at)
    code = child.wait()
    said = child.said.read_text().strip().splitlines()[-1:]
    faults = look(run)
    if not (run / CHECKPOINT).exists():  # there was no room for the first one
        run = run.with_name(run.name + "-anew")
    again = Child(data, run).wait()
    return {
        "at_sync": at,
        "exit": code,
        "said": said[0] if said else "",
        "faults": faults or ("" if again == 0 else f"exit code {again} when gone on with"),
        "weights": digest(run) if again == 0 else "",
    }


def counted(rows: dict[str, list[dict[str, Any]]], expected: str) -> dict[str, Any]:
    """The result, in numbers."""
    every = [row for some in rows.values() for row in some]
    return {
        "runs": {kind: len(some) for kind, some in rows.items()},
        "killed": {kind: sum(row["killed"] for row in some) for kind, some in rows.items() if kind != "disk full"},
        "killed_while_writing": Counter(name for row in every for name in row.get("while_writing", [])),
        "steps_of_their_checkpoints": Counter(str(row["at_step"]) for row in every if "at_step" in row),
        "same_weights": {kind: sum(row["weights"] == expected for row in some) for kind, some in rows.items()},
        "disk_full": [{key: row[key] for key in ("at_sync", "exit", "said")} for row in rows["disk full"]],
        "bad": [row for row in every if row["faults"] or row["weights"] != expected or row.get("leftovers")],
    }


def main() -> int:
    """Run all."""
    global SECONDS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anywhere", type=int, default=50, help="kills at any moment")
    parser.add_argument("--in-save", type=int, default=10, help="kills while a checkpoint is written")
    parser.add_argument("--in-bundle", type=int, default=5, help="kills while the bundle is written")
    parser.add_argument("--full", type=int, default=10, help="runs on a full disk")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_scenes(folder / "data")
        began = time.monotonic()
        if Child(data, folder / "whole").wait():
            sys.exit((folder / "whole.txt").read_text())
        expected, SECONDS = digest(folder / "whole"), time.monotonic() - began
        facts = {
            "seed": options.seed,
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            "steps": STEPS,
            "seconds_undisturbed": round(SECONDS, 1),
        }

        def add(kind: str, row: dict[str, Any]) -> None:
            rows[kind].append(row)
            print(kind, len(rows[kind]), row, file=sys.stderr, flush=True)
            if options.out:  # every time: it is a long way to the end
                options.out.write_text(json.dumps(facts | counted(rows, expected), indent=1) + "\n")

        plan = [("in the bundle", in_the_bundle, options.in_bundle), ("in a save", in_a_save, options.in_save)]
        plan += [("anywhere", any_moment, options.anywhere)]
        rows |= {"disk full": [], **{kind: [] for kind, *_ in plan}}
        for number in range(options.full):
            add("disk full", filled(data, folder / f"full-{number}", 1 + 2 * number))
        for kind, moment, count in plan:
            while sum(row["killed"] for row in rows[kind]) < count:
                add(kind, disturbed(data, folder / f"{kind}-{len(rows[kind])}", moment, draw))
    result = facts | counted(rows, expected)
    print(json.dumps(result, indent=1))
    return 1 if result["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
