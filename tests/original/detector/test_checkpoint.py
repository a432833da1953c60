"""Checkpoints map by name, every entry counts, and nothing in them is executed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slimdet.core.slimmable import Slimmable, slim
from slimdet.errors import WeightsError
from slimdet.original.configs.config import read_config
from slimdet.original.detector import checkpoint
from slimdet.original.detector.detector import WIDTHS, architecture_of, build

from ..reference import Reference
from ..small import CONFIGS, FILES

Small = Callable[[str], tuple[Path, Path]]


def model_of(config: Path) -> Slimmable:
    return slim(build(architecture_of(read_config(config))), WIDTHS, "backbone")


@pytest.fixture(scope="module")
def rpn(small: Small) -> tuple[Slimmable, Path, dict[str, torch.Tensor]]:
    config, weights = small("rpn")
    return model_of(config), weights, checkpoint.read(weights)["state_dict"]


@pytest.mark.parametrize("kind", ["mask", "fast", "rpn"])
def test_names_and_order_are_the_originals(original: Reference, kind: str) -> None:
    model = model_of(CONFIGS / f"{FILES[kind]}_r50_fpn_1x.py")
    found = [[name, list(value.shape)] for name, value in checkpoint.state_of(model).items()]
    assert found == original.json(f"{FILES[kind]}_r50_fpn_keys.json")


def test_each_width_gets_its_own_norms(rpn: Any) -> None:
    model, weights, state = rpn
    for index in range(4):
        state[f"backbone.layer2.0.bn1.bn.{index}.running_mean"].fill_(index + 1)
    torch.save(state, weights.with_name("changed.pth"))
    checkpoint.load(model, weights.with_name("changed.pth"))
    for index, width in enumerate(WIDTHS):
        norm = model.twin(width).get_submodule("backbone.body.layer2.0.bn1")
        assert norm.running_mean.unique().tolist() == [index + 1]
        assert len(norm.running_mean) == int(width * 128)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_bare_wrapped_and_prefixed(rpn: Any, tmp_path: Path, wrap: Any) -> None:
    model, _, state = rpn
    changed = {name: value + 1 for name, value in state.items()}
    torch.save(wrap(changed), tmp_path / "x.pth")
    checkpoint.load(model, tmp_path / "x.pth")
    found = checkpoint.state_of(model)
    assert all(torch.equal(found[name], value) for name, value in changed.items())


def test_what_does_not_fit_is_listed(rpn: Any, tmp_path: Path) -> None:
    model, _, state = rpn
    wrong = dict(state)
    wrong["neck.lateral_convs.7.conv.bias"] = wrong.pop("neck.lateral_convs.0.conv.bias")
    wrong["rpn_head.rpn_cls.bias"] = torch.zeros(5)
    del wrong["backbone.bn1.bn.2.num_batches_tracked"]  # files from before torch 0.4.1 have none
    torch.save(wrong, tmp_path / "x.pth")
    before = checkpoint.state_of(model)["rpn_head.rpn_reg.bias"].clone()
    with pytest.raises(WeightsError) as caught:
        checkpoint.load(model, tmp_path / "x.pth", advice="; that helps")
    message = str(caught.value)
    assert "1 missing: neck.lateral_convs.0.conv.bias;" in message
    assert "1 unexpected: neck.lateral_convs.7.conv.bias;" in message
    assert "1 misfitting: rpn_head.rpn_cls.bias [5] for [3]; that helps" in message
    assert torch.equal(checkpoint.state_of(model)["rpn_head.rpn_reg.bias"], before)
    wrong["rpn_head.rpn_reg.bias"] = torch.full_like(before, 4)
    torch.save(wrong, tmp_path / "x.pth")
    told: list[str] = []
    checkpoint.load(model, tmp_path / "x.pth", lenient=True, warn=told.append)
    assert "neck.lateral_convs.7.conv.bias" in told[0]
    assert checkpoint.state_of(model)["rpn_head.rpn_reg.bias"].unique().tolist() == [4]


class Call:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    "content", [{"state_dict": {}}, {"state_dict": {"a": 1}}, [1, 2], {"a": torch.zeros(1), "b": Call()}]
)
def test_other_files_are_refused(rpn: Any, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth"):
        checkpoint.read(tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match=r"y\.pth"):
        checkpoint.read(tmp_path / "y.pth")
    with pytest.raises(WeightsError, match=r"no weights file .*absent\.pth"):
        checkpoint.read(tmp_path / "absent.pth")


@pytest.fixture(scope="module")
def classifier(rpn: Any) -> dict[str, torch.Tensor]:
    """The backbone as a classification checkpoint: other names, the same order, a classifier behind it."""
    _, _, state = rpn
    backbone = [(name, value) for name, value in state.items() if name.startswith("backbone.")]
    renamed = {f"features.{i}.{name.rpartition('.')[2]}": value * 2 for i, (name, value) in enumerate(backbone)}
    return {**renamed, "classifier.0.weight": torch.zeros(7, 512), "classifier.0.bias": torch.zeros(7)}


@pytest.mark.parametrize("with_counters", [True, False])
def test_classification_weights_load_in_order(rpn: Any, classifier: Any, tmp_path: Path, with_counters: bool) -> None:
    model, _, state = rpn
    given = {k: v for k, v in classifier.items() if with_counters or not k.endswith("num_batches_tracked")}
    torch.save({"model": {f"module.{k}": v for k, v in given.items()}}, tmp_path / "x.pth")
    checkpoint.load_classifier(model, tmp_path / "x.pth")
    found = checkpoint.state_of(model)
    for name, value in state.items():
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(found[name], value * 2), name


def test_a_classification_file_that_is_another(rpn: Any, classifier: Any, tmp_path: Path) -> None:
    model = rpn[0]
    torch.save(dict(list(classifier.items())[1:]), tmp_path / "short.pth")
    with pytest.raises(WeightsError, match="backbone entries"):
        checkpoint.load_classifier(model, tmp_path / "short.pth")
    entries = list(classifier.items())
    weight = next(i for i, (name, _) in enumerate(entries) if name.endswith("running_mean"))
    entries[weight], entries[weight + 1] = entries[weight + 1], entries[weight]  # shapes agree, kinds do not
    torch.save(dict(entries), tmp_path / "swapped.pth")
    with pytest.raises(WeightsError, match="2 differ"):
        checkpoint.load_classifier(model, tmp_path / "swapped.pth")


@pytest.mark.parametrize("file", ["s_resnet50_cls_keys", "s_resnet50_cls_keys_with_num_batches_tracked"])
def test_the_released_classification_file_pairs_as_the_original_paired_it(
    original: Reference, tmp_path: Path, file: str
) -> None:
    keys = original.json(f"{file}.json")
    pairs = original.json("backbone_order_map_cls_to_det.json")
    given = {name: torch.full(shape, float(number)) for number, (name, shape) in enumerate(keys)}
    torch.save(given, tmp_path / "x.pt")
    model = model_of(CONFIGS / "rpn_r50_fpn_1x.py")
    checkpoint.load_classifier(model, tmp_path / "x.pt")
    found = checkpoint.state_of(model)
    assert len(pairs) == 901
    for pair in pairs:
        ours, theirs = pair[:2]
        assert torch.equal(found[ours], given[theirs]), (theirs, ours)
