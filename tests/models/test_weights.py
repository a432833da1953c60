"""Files of weights: read whatever way a state dict was saved, never execute, copy only what fits."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slimdet.errors import WeightsError
from slimdet.models.weights import fit, read_checkpoint, read_state_dict


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("wrap", [dict, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s, "meta": {}}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_is_found_bare_or_wrapped(tmp_path: Path, wrap, prefix: str) -> None:
    state = network().state_dict()
    torch.save(wrap({prefix + key: value for key, value in state.items()}), tmp_path / "w.pth")
    assert equal(read_state_dict(tmp_path / "w.pth"), dict(state))


def test_what_lies_beside_the_state_dict(tmp_path: Path) -> None:
    state = dict(network().state_dict())
    torch.save({"state_dict": state, "meta": {"epoch": 3}, "optimizer": None}, tmp_path / "w.pth")
    found, rest = read_checkpoint(tmp_path / "w.pth")
    assert equal(found, state)
    assert rest == {"meta": {"epoch": 3}, "optimizer": None}
    torch.save(state, tmp_path / "bare.pth")
    assert read_checkpoint(tmp_path / "bare.pth")[1] == {}


def test_safetensors(tmp_path: Path) -> None:
    state = network().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    assert equal(read_state_dict(tmp_path / "w.safetensors"), dict(state))


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_code_in_a_file_is_refused_and_not_executed(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "b": Bomb(tmp_path / "executed")}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "executed"), protocol=2))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(WeightsError, match=r"names \S+, which slimdet never executes"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def truncated(path: Path) -> None:
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors"])
@pytest.mark.parametrize(
    "make",
    [
        truncated,
        lambda path: path.write_text("this is a licence, not a network"),
        lambda path: path.write_bytes(b""),
        lambda path: path.mkdir(),
        lambda path: None,
        lambda path: torch.save(torch.ones(3), path),
        lambda path: torch.save({}, path),
        lambda path: torch.save({"epoch": 3}, path),
        lambda path: torch.save({3: torch.ones(1)}, path),
        lambda path: torch.save(network(), path),
    ],
    ids=["truncated", "text", "empty", "folder", "absent", "tensor", "no keys", "no tensors", "numbers", "module"],
)
def test_what_is_no_state_dict_is_one_line_with_the_file(tmp_path: Path, make, name: str) -> None:
    make(tmp_path / name)
    with pytest.raises(WeightsError, match=name) as caught:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_fp16_fills_fp32_and_counters_may_be_missing() -> None:
    state = {k: v.half() for k, v in network().state_dict().items() if not k.endswith("num_batches_tracked")}
    target = network()
    fit(target, state, set(), "x")
    assert all(parameter.dtype == torch.float32 for parameter in target.parameters())
    assert torch.equal(target.get_parameter("0.weight"), state["0.weight"].float())


def test_every_fault_is_named_and_nothing_is_copied() -> None:
    target = network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = dict(network().state_dict())
    del state["0.bias"]
    state["2.weight"] = torch.ones(4)
    state["1.weight"] = torch.ones(5)
    state["1.bias"] = torch.full((4,), float("nan"))
    state["1.running_mean"] = torch.ones(4, dtype=torch.int8)
    with pytest.raises(WeightsError) as caught:
        fit(target, state, set(), "no fit")
    for part in (
        "no fit: missing: 0.bias",
        "unexpected: 2.weight",
        "wrong shape: 1.weight [5] instead of [4]",
        "not finite floats: 1.bias, 1.running_mean",
        "--weights none",
    ):
        assert part in str(caught.value)
    assert equal(before, dict(target.state_dict()))


def test_many_faults_are_counted() -> None:
    with pytest.raises(WeightsError, match=r"unexpected: k0, k1, k2, k3, k4 and 3 more"):
        fit(network(), {**network().state_dict(), **{f"k{n}": torch.ones(1) for n in range(8)}}, set(), "x")


def test_unused_keys_may_have_any_shape_or_be_missing() -> None:
    target, state = network(), dict(network().state_dict())
    kept = target.get_parameter("1.weight").clone()
    del state["1.bias"]
    state["1.weight"] = torch.ones(9)
    fit(target, state, {"1.weight", "1.bias"}, "x")
    assert torch.equal(target.get_parameter("0.weight"), state["0.weight"])
    assert torch.equal(target.get_parameter("1.weight"), kept)
