"""Checkpoints: what comes back from them, and what is said of those that cannot be used."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from slimdet.errors import ConfigError
from slimdet.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from slimdet.training.trainer import resume


def test_what_is_saved_is_what_comes_back(tmp_path: Path) -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    ahead, behind = (torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9) for module in (first, second))
    first(torch.ones(1, 2)).sum().backward()
    ahead.step()
    save_checkpoint(tmp_path / "last.pt", first, first, ahead, 7)
    drawn = torch.rand(3)
    assert load_checkpoint(tmp_path / "last.pt", second, None, behind, torch.device("cpu")) == 7
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(first.weight, second.weight)
    momenta = [next(iter(one.state_dict()["state"].values()))["momentum_buffer"] for one in (ahead, behind)]
    assert torch.equal(*momenta)


def test_a_checkpoint_of_another_training_is_named(tmp_path: Path) -> None:
    first, other = nn.Linear(2, 2), nn.Linear(3, 2)
    sgd = torch.optim.SGD(first.parameters(), lr=0.1)
    save_checkpoint(tmp_path / "last.pt", first, None, sgd, 1)
    with pytest.raises(ConfigError, match=r"last\.pt cannot be gone on with \(Error.* in loading"):
        load_checkpoint(tmp_path / "last.pt", other, None, sgd, torch.device("cpu"))


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_named(trained: Path, tmp_path: Path, damage: bytes | None) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    file = run / CHECKPOINT
    file.write_bytes(file.read_bytes()[:5000] if damage is None else damage)
    with pytest.raises(ConfigError, match=r"last\.pt cannot be gone on with"):
        resume(run)
