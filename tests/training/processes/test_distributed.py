"""Training in two processes that torchrun starts: one run, the result of one process, and an end when one is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ports import free_port
from scenes import make_scenes
from slimdet.errors import ConfigError
from slimdet.training.processes import distributed
from slimdet.training.processes.distributed import (
    Place,
    Restarts,
    find_place,
    find_restarts,
    flat_gradients,
    reduce_step,
    running_statistics,
    set_gradients,
)
from slimdet.training.safety.checkpoint import CHECKPOINT

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
# Norms that do not look at other images, and nothing taught that does: several processes equal one.
EXACT = ["--freeze-backbone-norm", "--head-norm", "group", "--distill", "1", "--distill-parts", "classes,masks"]


def command(data: Path, out: Path, *flags: str) -> list[str]:
    fixed = "--recipe paper --model mask_rcnn --backbone resnet18 --neck light --weights none --imgsz 64 --batch 4"
    return [
        "slimdet",
        "train",
        "--data",
        str(data),
        "--out",
        str(out),
        *fixed.split(),
        "--widths",
        "0.5,1.0",
        "--device",
        "cpu",
        *flags,
    ]


def in_processes(words: Sequence[str], *torchrun: str, world: int = 2) -> list[str]:
    port = f"--master_port={free_port()}"
    start = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={world}", port]
    return [*start, *torchrun, "-m", *words]


def ended(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, env=ONE_THREAD, timeout=300, check=False)


def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / CHECKPOINT, weights_only=True)


# ------------------------------------------------------------------------------------------------- the pieces


def test_places() -> None:
    assert find_place({}) == Place(0, 1, 0)
    assert find_place({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Place(3, 8, 1)
    assert (Place(0, 2).main, Place(1, 2).main) == (True, False)
    with pytest.raises(ConfigError, match="RANK='2', WORLD_SIZE='2'"):
        find_place({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"})
    assert find_restarts({}) == Restarts(0, 0)
    assert find_restarts({"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}) == Restarts(1, 3)


def test_alone_nothing_is_sent() -> None:
    alone, tensor, parameter = Place(), torch.tensor([1.0, 2.0]), nn.Parameter(torch.ones(2))
    assert alone.gather("x") == ["x"]
    assert alone.first("x") == "x"
    assert alone.sum(tensor) is tensor
    reduce_step(alone, [parameter], [tensor], 1.0)
    assert tensor.tolist() == [1, 2]
    assert parameter.grad is None


class Doubled(Place):
    """Two processes that happen to hold the same."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.mul_(2)


def test_a_steps_message_sums_gradients_and_averages_statistics() -> None:
    norm = nn.BatchNorm2d(2)
    unused, used = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))
    used.grad = torch.arange(4.0).view(2, 2)
    statistics = running_statistics(nn.Sequential(norm, nn.GroupNorm(1, 2)))
    assert [tensor.shape for tensor in statistics] == [(2,), (2,)]
    norm.running_mean = statistics[0].copy_(torch.tensor([1.0, 3.0]))
    loss = torch.tensor(0.25)
    reduce_step(Doubled(0, 2), [unused, used], statistics, 0.5, [loss])
    assert unused.grad is None  # no process has one: no momentum, no weight decay
    assert used.grad.tolist() == [[0, 2], [4, 6]]
    assert statistics[0].tolist() == [1, 3]
    assert loss == 0.5


def test_a_gradient_that_another_process_has_is_taken() -> None:
    mine, others = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    others.grad = torch.tensor([1.0, 2.0])
    set_gradients([mine], flat_gradients([mine]) + flat_gradients([others]))
    assert mine.grad is not None
    assert mine.grad.tolist() == [1, 2]


def test_a_process_that_ended_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tensor: torch.Tensor) -> None:
        raise RuntimeError("[/pytorch/pair.cc:545] Read error [10.0.0.2]:39123: Connection reset by peer. Long words.")

    monkeypatch.setattr(distributed.distributed, "all_reduce", broken)
    with pytest.raises(ConfigError, match=r"run ended \(Read error \[10\.0\.0\.2\]:39123: Connection reset by peer\);"):
        Place(0, 2).sum(torch.ones(1))


# ------------------------------------------------------------------------------------------------- processes


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """Batches of four and, at the end, one image: the second process has none then."""
    data = make_scenes(tmp_path / "scenes", images=5)
    one, two = tmp_path / "one", tmp_path / "two"
    alone = ended([sys.executable, "-m", *command(data, one, "--epochs", "1", "--json", *EXACT)])
    both = ended(in_processes(command(data, two, "--epochs", "1", "--json", *EXACT)))
    assert alone.returncode == both.returncode == 0, alone.stderr + both.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "scenes", "two"]  # one folder for both

    before, after = checkpoint(one), checkpoint(two)
    assert before["step"] == after["step"] == 2
    for name, value in before["model"].items():
        torch.testing.assert_close(after["model"][name], value, rtol=0, atol=1e-6, msg=name)
    told, found = json.loads(alone.stdout), json.loads(both.stdout)  # one document
    assert told["widths"].keys() == found["widths"].keys() == {"0.5", "1.0"}
    for width, kinds in told["widths"].items():
        for kind, numbers in kinds.items():
            assert found["widths"][width][kind] == pytest.approx(numbers, abs=1e-3)
    rows = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in (one, two)]
    for name in (name for name in rows[0] if name.startswith(("loss", "distill"))):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=1e-4, abs=1e-6), name


def test_a_killed_process_ends_all_and_the_next_start_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes")
    flags = ["--epochs", "3", "--save-every", "0.001", "--no-evaluate", "--head-norm", "batch"]
    whole = ended(in_processes(command(data, tmp_path / "whole", *flags)))
    assert whole.returncode == 0, whole.stderr
    words = in_processes(command(data, tmp_path / "cut", *flags), "--max-restarts=1")
    code, told = sent(signal.SIGKILL, words, tmp_path)
    assert code == 0, told
    assert "exitcode: -9" in told
    before, after = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "cut")
    assert before["step"] == after["step"] == 6
    assert all(torch.equal(after["model"][name], value) for name, value in before["model"].items())


@pytest.mark.slow  # a minute; that a killed one ends all is tested above
def test_a_signal_to_one_stops_all_after_the_same_step(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes")
    flags = ["--epochs", "10", "--save-every", "0.001", "--no-evaluate"]
    code, told = sent(signal.SIGTERM, in_processes(command(data, tmp_path / "cut", *flags)), tmp_path)
    assert code != 0
    assert f"--resume {tmp_path / 'cut'}" in told
    assert "another process of this run ended" not in told
    assert 0 < steps_of(tmp_path / "cut") < 20
    alone = ended([sys.executable, "-m", "slimdet", "train", "--resume", str(tmp_path / "cut")])  # in another number
    assert alone.returncode == 0, alone.stderr
    assert steps_of(tmp_path / "cut") == 20


def sent(number: int, words: Sequence[str], folder: Path) -> tuple[int, str]:
    """Send a signal to the second process of a run in `folder / "cut"` that has done a step; exit code and stderr."""
    with (folder / "stderr").open("w") as stderr:
        running = subprocess.Popen(words, stderr=stderr, stdout=stderr, env=ONE_THREAD)
        limit = time.monotonic() + 200
        while not steps_of(folder / "cut") and running.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        os.kill(children(running.pid)[-1], number)
        code = running.wait(timeout=300)
    return code, (folder / "stderr").read_text()


def steps_of(run: Path) -> int:
    return checkpoint(run)["step"] if (run / CHECKPOINT).exists() else 0


def children(process: int) -> list[int]:
    """The processes that torchrun started, in the order of their ranks."""
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_mistakes_of_many_processes(scenes: Path, tmp_path: Path) -> None:
    odd = ended(in_processes([*command(scenes, tmp_path / "odd"), "--batch", "3"]))
    assert odd.returncode != 0
    assert "slimdet: --batch 3 cannot be shared equally by 2 processes; 2 or 4 can" in odd.stderr
    assert not (tmp_path / "odd").exists()


def test_a_training_that_may_start_again_has_a_folder(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slimdet import train

    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    with pytest.raises(ConfigError, match="--out is missing"):
        train(data=scenes)
