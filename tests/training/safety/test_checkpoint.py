"""Checkpoints: what comes back from them, and what is said of those that cannot be used."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimdet.errors import ConfigError
from slimdet.training.runs import resume
from slimdet.training.safety.checkpoint import CHECKPOINT, read_checkpoint, restore, save_checkpoint

FACTS = {"step": 7, "settings": {"widths": (0.5, 1.0)}, "data": "ab12"}


def draw() -> list[float]:
    return [*torch.rand(3).tolist(), random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]


def test_what_is_saved_is_what_comes_back(tmp_path: Path) -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    ahead, behind = (torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9) for module in (first, second))
    first(torch.ones(1, 2)).sum().backward()
    ahead.step()
    draw()  # leaves a second normal number behind in numpy's generator and in Python's
    save_checkpoint(tmp_path / "last.pt", first, first, ahead, FACTS)
    drawn = draw()
    state = read_checkpoint(tmp_path / "last.pt")
    restore(state, tmp_path / "last.pt", second, None, behind)
    assert draw() == drawn
    assert FACTS.items() <= state.items()
    assert torch.equal(first.weight, second.weight)
    momenta = [next(iter(one.state_dict()["state"].values()))["momentum_buffer"] for one in (ahead, behind)]
    assert torch.equal(*momenta)


def test_a_checkpoint_of_another_training_is_named(tmp_path: Path) -> None:
    first, other = nn.Linear(2, 2), nn.Linear(3, 2)
    sgd = torch.optim.SGD(first.parameters(), lr=0.1)
    file = tmp_path / "last.pt"
    save_checkpoint(file, first, None, sgd, FACTS)
    with pytest.raises(ConfigError, match=r"last\.pt cannot be gone on with \(Error.* in loading"):
        restore(read_checkpoint(file), file, other, None, sgd)


def test_a_checkpoint_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    torch.save({"model": {}, "step": 3}, tmp_path / "last.pt")
    with pytest.raises(ConfigError, match="no checkpoint of this version"):
        read_checkpoint(tmp_path / "last.pt")
    with pytest.raises(ConfigError, match="stopped before its first step"):
        read_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_named(trained: Path, tmp_path: Path, damage: bytes | None) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    file = run / CHECKPOINT
    file.write_bytes(file.read_bytes()[:5000] if damage is None else damage)
    with pytest.raises(ConfigError, match=r"last\.pt cannot be gone on with"):
        resume(run)
