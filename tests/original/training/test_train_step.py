"""One training step of the original: losses and gradients of all widths, by benchmarks/parity/train_step.py."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ..reference import Reference

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "parity" / "train_step.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("train_step", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(
    original: Reference, config: Path, weights: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *flags: str
) -> dict[str, Any]:
    """What the script writes for the reference's batch."""
    data = ["--data", str(original.annotations), "--images", str(original.images)]
    monkeypatch.setattr(sys, "argv", ["train_step.py", str(config), str(weights), *data, *flags, "--out", str(out)])
    script().main()
    return json.loads(out.read_text())


def assert_losses(found: dict[str, Any], wanted: dict[str, Any], limit: float = 1e-4) -> None:
    for width, losses in wanted.items():
        for name, value in losses.items():
            if name.startswith(("loss", "acc")):
                assert found[width][name] == pytest.approx(value, rel=limit, abs=1e-9), (width, name)


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("faster", "mask")), "rpn"])
def test_losses_and_gradients_are_the_originals(
    original: Reference,
    synthetic: Any,
    reference_config: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    config, weights, out = reference_config(kind), synthetic(kind), tmp_path / "x.json"
    found = written(original, config, weights, out, monkeypatch, "--take-all")
    wanted = original.json(f"train_{kind}_all.json")
    assert wanted.keys() <= found.keys()
    assert_losses(found["losses"], wanted["losses"])
    for name in ("requires_grad", "training_flag", "grad_none", "img_meta_0", "img_meta_1", "clip_max_norm"):
        assert found[name] == wanted[name], name
    for name in ("grad_norms", "grad_norm_after_width", "param_change_norm_after_step"):
        assert found[name].keys() == wanted[name].keys()
        for key, value in wanted[name].items():
            assert found[name][key] == (value if value is None else pytest.approx(value, rel=2e-3)), (name, key)


@pytest.mark.slow
def test_samplers_draw_as_the_original_does(
    original: Reference, synthetic: Any, reference_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = written(
        original, reference_config("mask"), synthetic("mask"), tmp_path / "x.json", monkeypatch, "--seed", "0"
    )
    wanted = original.json("train_mask_random.json")
    # Two proposals of nearly the same score may change places, and then the other one is drawn: 1 of 1024 box samples.
    assert_losses(found["losses"], wanted["losses"], limit=1e-3)
